"""The benchmark's table: a row for each method, and below it what was to be reached.

In: the studies of each method on one problem. Out: lines of text. Pure.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tests.benchmarks.search.study import Study

OURS, PLAIN, WRONG = "gp + twin", "gp", "gp + twin off by 2"
OTHERS = ("optuna TPE", "vLLM auto_tune", "SGLang auto_benchmark")
_COLUMNS = ("n 5%", "hit", "n 2%", "hit", "min 5%", "min 2%")


def header(stops: Sequence[int]) -> str:
    """Return the names of the columns."""
    return (
        f"{'method':22}"
        + "".join(f"{each:>7}" for each in _COLUMNS)
        + "".join(f"{f'@{stop}':>12}" for stop in stops)
        + f"{'made':>6}{'fresh':>6}{'loss':>14}{'nothing':>8}"
        + f"{'crashes':>8}{'misses':>7}{'worse':>6}{'s/launch':>9}"
    )


def row(name: str, studies: Sequence[Study]) -> str:
    """Return a line of the table."""
    cells = []
    for counts in ([study.launches_5 for study in studies], [study.launches_2 for study in studies]):
        cells += [_median(counts), f"{np.isfinite(counts).mean():.0%}"]
    cells += [
        _median([study.minutes_5 for study in studies]),
        _median([study.minutes_2 for study in studies]),
    ]
    text = f"{name:22}" + "".join(f"{each:>7}" for each in cells)
    for values in zip(*(study.exported for study in studies), strict=True):
        text += f"{f'{np.median(values):.3f}/{np.percentile(values, 10):.3f}':>12}"
    losses = [1 - study.last for study in studies]
    text += f"{_middle([study.launches for study in studies]):>6.0f}"
    text += f"{_middle([study.fresh for study in studies]):>6.0f}"
    text += f"{f'{np.median(losses):.1%}/{np.percentile(losses, 90):.1%}':>14}"
    text += f"{_share([not study.last and not study.misses for study in studies]):>8.0%}"
    crashes = _middle([study.crashes for study in studies])
    misses, worse = _share([study.misses for study in studies]), _share([study.is_worse for study in studies])
    ask_s = np.mean([study.ask_s for study in studies])
    return f"{text}{crashes:>8.3g}{misses:>7.1%}{worse:>6.0%}{ask_s:>9.2f}"


def reached(studies: Mapping[str, Sequence[Study]]) -> Iterator[str]:
    """Yield what was to be reached, what was, and whether that is enough; as far as it was measured."""
    if OURS in studies:
        ours = studies[OURS]
        minutes = _middle([study.minutes_5 for study in ours])
        yield _against("launches to 5 %, median", _middle([study.launches_5 for study in ours]), 4)
        yield _against("launches to 2 %, median", _middle([study.launches_2 for study in ours]), 8)
        missed = _share([not np.isfinite(study.launches_2) for study in ours])
        yield _against("share that never came within 2 %", missed, 0.1)
        yield _against("crashes, median", _middle([study.crashes for study in ours]), 1)
        yield _against(
            "share that misses the SLO on a re-test", _share([study.misses for study in ours]), 0.02
        )
        for other in OTHERS:
            if other in studies and np.isfinite(minutes):
                theirs = _middle([study.minutes_5 for study in studies[other]])
                yield _against(f"minutes to 5 % against {other}", minutes / theirs, 0.25)
    if PLAIN in studies and WRONG in studies:
        plain, wrong = (
            np.median([study.exported for study in studies[name]], axis=0) for name in (PLAIN, WRONG)
        )
        worst = float(np.max(1 - wrong / np.maximum(plain, 1e-9)))
        yield _against("a twin off by 2 exports less than the plain GP, worst stop", max(worst, 0.0), 0.1)


def _against(what: str, value: float, limit: float) -> str:
    verdict = "reached" if value <= limit else "NOT reached"
    return f"  {what}: {value:.3g}, at most {limit:g}: {verdict}"


def _middle(values: Sequence[float]) -> float:
    return float(np.median(values))


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values))


def _median(values: Sequence[float]) -> str:
    middle = _middle(values)
    return f"{middle:.0f}" if np.isfinite(middle) else "never"
