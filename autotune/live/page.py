"""A study's progress drawn to fill a terminal, however small or large it is. Pure.

In: a `Progress`. Out: a rich renderable. Invariants: never wider or higher than the terminal; what matters
most stays when there is little room; simulated numbers say so in the first line.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from autotune.live.blocks import (
    best_lines,
    best_title,
    ceiling_lines,
    ceilings_title,
    failure_lines,
    flag_lines,
    head_lines,
    log_lines,
    running_lines,
)
from autotune.live.progress import Progress

REFRESHES_PER_SECOND = 4
WIDE = 100
"""From so many columns on, two of them stand beside each other."""
_GAP = 3
_RUNNING_ROWS = 4
_ASCII = str.maketrans("·─━█▇▆▅▄▃▂▁…", "--=##==--__.")


@dataclass(frozen=True)
class Block:
    """A part of the page: its title, and how to draw it in so many rows of so many cells.

    `least`: with fewer rows it is left out. `most`: more are not given.
    """

    title: str | None
    draw: Callable[[Progress, int, int], list[Text]]
    least: int = 1
    most: int = 99


@dataclass(frozen=True)
class Page:
    """A progress as something that rich can show."""

    progress: Progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one line of text for each row, in the size of the terminal."""
        height = options.height or console.size.height
        for line in page_lines(self.progress, options.max_width, height):
            yield _without_symbols(line) if options.ascii_only else line


def live_page(progress: Callable[[], Progress], console: Console) -> Live:
    """Return a context that fills the terminal with a study's progress, and gives it back at its end."""
    return Live(
        get_renderable=lambda: Page(progress()),
        console=console,
        screen=True,
        refresh_per_second=REFRESHES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def page_lines(progress: Progress, width: int, height: int) -> list[Text]:
    """Return the lines of the page, none wider than `width` cells, at most `height` of them."""
    head = [_fitted(line, width) for line in head_lines(progress)][:height]
    room = height - len(head)
    now = Block(None, running_lines, max(min(len(progress.running), _RUNNING_ROWS, room // 2), 1))
    flags = Block("candidate against the best and the baseline", flag_lines, 5)
    ceilings = Block(ceilings_title(progress), ceiling_lines)
    best = Block(best_title(progress), best_lines, 2, 5 if width < WIDE else 10)
    failures = Block("not measured", failure_lines, 1, 4)
    log = Block("finished", log_lines)
    if width < WIDE:
        return [*head, *_column(progress, [now, ceilings, best, flags, failures, log], width, room)]
    wide = (width - _GAP) // 2
    left = _column(progress, [now, flags, log], wide, room)
    right = _column(progress, [ceilings, best, failures], width - _GAP - wide, room)
    return [*head, *_beside(left, right, wide)]


def _column(progress: Progress, blocks: Sequence[Block], width: int, height: int) -> list[Text]:
    """Return blocks one below the other."""
    lines: list[Text] = []
    for block, rows in zip(blocks, _shares(progress, blocks, width, height), strict=True):
        if rows:
            lines += [] if block.title is None else [_rule(block.title, width)]
            lines += block.draw(progress, rows, width)[:rows]
    return [_fitted(line, width) for line in lines]


def _shares(progress: Progress, blocks: Sequence[Block], width: int, height: int) -> list[int]:
    """Return how many rows each block gets: first what each needs at least, then more, in their order."""
    wanted = [len(block.draw(progress, block.most, width)) for block in blocks]
    shares, room = [0] * len(blocks), height
    for index, block in enumerate(blocks):
        least = min(block.least, wanted[index])
        needed = least + (block.title is not None)
        if least and needed <= room:
            shares[index], room = least, room - needed
    for index, share in enumerate(shares):
        more = min(wanted[index] - share, room) if share else 0
        shares[index], room = share + more, room - more
    return shares


def _beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    lines = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        line = Text().append_text(one)  # whose own style ends with it
        line.pad_right(width - cell_len(line.plain) + _GAP)
        lines.append(line.append_text(other))
    return lines


def _rule(title: str, width: int) -> Text:
    return Text(f"── {title} {'─' * max(width - len(title) - 4, 0)}", style="dim")


def _fitted(line: Text, width: int) -> Text:
    line.truncate(max(width, 1), overflow="ellipsis")
    line.no_wrap = True
    return line


def _without_symbols(line: Text) -> Text:
    """Return a line for a terminal that has no Unicode."""
    plain = line.copy()
    plain.plain = line.plain.translate(_ASCII).encode("ascii", "replace").decode()
    return plain
