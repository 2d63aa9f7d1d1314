import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autotune.errors import ConfigError
from autotune.record import Role
from autotune.report.compare import Comparison, Section, compare
from autotune.report.compare_files import (
    html_comparison,
    markdown_comparison,
    terminal_comparison,
    write_comparison,
)
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.study_history import StudyHistory
from tests.support.histories import (
    FASTER,
    answered,
    confirmed,
    empty,
    history,
    improved,
    kept,
    make_study,
    nothing_meets,
    trial,
)


def _section(comparison: Comparison, title: str) -> dict[str, tuple[str, ...]]:
    (section,) = (section for section in comparison.sections if section.title == title)
    return {row[0]: row[1:] for row in section.rows}


def _titles(comparison: Comparison) -> list[str]:
    return [section.title for section in comparison.sections]


def _study(*values: float, space: Mapping[str, object] = {}, slo: Mapping[str, object] = {}) -> StudyHistory:
    """A study whose trial 1 won with these fresh launches; its baseline had a tenth less."""
    study = make_study(space, slo)
    trials = [
        trial(study, 0, {}, 0.9 * values[0], 5.0, role=Role.BASELINE),
        trial(study, 1, FASTER, values[0], 5.0),
    ]
    winner, baseline = confirmed(study, 1, values[0], 5.0), confirmed(study, 0, 0.9 * values[0], 5.0)
    winner = winner.model_copy(update={"values": tuple((value,) for value in values)})
    baseline = baseline.model_copy(update={"values": tuple((0.9 * value,) for value in values)})
    return history(study, *trials, answer=answered(AnswerKind.IMPROVED, 1, baseline, winner))


def _simulated(found: StudyHistory) -> StudyHistory:
    trials = (
        NumberedTrial(each.number, each.record.model_copy(update={"is_simulated": True}))
        for each in found.trials
    )
    return replace(found, trials=tuple(trials))


BEFORE, AFTER = _study(1000.0, 1010.0), _study(1200.0, 1210.0, space={"version": "0.5.24"})


def test_the_gain_is_that_of_the_fresh_launches_with_its_interval() -> None:
    rows = _section(compare(BEFORE, AFTER), "Gain of B over A")

    ours, theirs, gain = rows["the answers: maximise output_throughput at concurrency 50"]
    assert (ours, theirs) == ("1,000 tok/s (2 launches)", "1,200 tok/s (2 launches)")
    assert gain.startswith("+19.9 % [+1")
    assert "the baselines: maximise output_throughput at concurrency 50" in rows


def test_the_interval_holds_what_two_launches_can_tell() -> None:
    (row, *_) = next(
        each for each in compare(BEFORE, _study(1000.0, 1400.0)).sections if each.title.startswith("Gain")
    ).rows

    assert "[-" in row[3]


def test_candidates_that_were_launched_once_give_no_gain() -> None:
    rows = _section(compare(nothing_meets(), nothing_meets()), "Gain of B over A")

    assert {row[-1] for row in rows.values()} == {"the launches do not tell"}
    assert all("(1 launch)" in row[0] for row in rows.values())


def test_what_was_asked_differently_is_listed_and_nothing_else() -> None:
    assert _section(compare(BEFORE, AFTER), "What was asked") == {
        "engine": ("sglang 0.5.23", "sglang 0.5.24")
    }
    assert "What was asked" not in _titles(compare(BEFORE, BEFORE))


def test_flags_ceilings_failures_and_cost_stand_beside_each_other() -> None:
    comparison = compare(improved(), kept())

    assert comparison.title == "r1 and r1"
    assert set(_section(comparison, "Flags that differ")) >= {"chunked-prefill-size"}
    ours, theirs = _section(comparison, "Ceilings")["ttft p95 < 10s at concurrency 50"]
    assert "(met)" in ours
    assert "room of" in theirs
    assert _section(comparison, "Not measured")
    assert "launches in" in _section(comparison, "Cost")["all trials"][0]


def test_a_default_that_an_upgrade_changed_is_found() -> None:
    def with_effective(found: StudyHistory, **flags: object) -> StudyHistory:
        first, second = found.trials
        assert second.record.effective is not None
        effective = second.record.effective.model_copy(update={"flags": flags})
        record = second.record.model_copy(update={"effective": effective})
        return replace(found, trials=(first, NumberedTrial(1, record)))

    before = with_effective(BEFORE, **{"page-size": 1, "port": 1, "tp-size": 8})
    after = with_effective(AFTER, **{"page-size": 64, "port": 2, "tp-size": 8})

    assert _section(compare(before, after), "What else the engine ran with") == {"page-size": ("1", "64")}


def test_simulated_against_measured_is_said_loudly_and_gives_no_gain() -> None:
    measured_first, simulated_first = compare(BEFORE, _simulated(AFTER)), compare(_simulated(BEFORE), AFTER)

    assert measured_first.warnings[0].startswith("DO NOT COMPARE: B: r1 is SIMULATED, A: r1 was MEASURED")
    assert simulated_first.warnings[0].startswith("DO NOT COMPARE: A: r1 is SIMULATED, B: r1 was MEASURED")
    assert "Gain of B over A" not in _titles(measured_first)
    assert measured_first.notes == ()
    assert _section(measured_first, "Answers")["numbers"] == ("measured", "SIMULATED")


def test_two_simulated_studies_say_so_first() -> None:
    assert compare(_simulated(BEFORE), _simulated(AFTER)).warnings[0].startswith("SIMULATED")
    assert compare(BEFORE, AFTER).warnings == ()


@pytest.mark.parametrize(
    ("slo", "warning"),
    [
        ({"workload": {"input_tokens": 99, "output_tokens": 256}}, "The workloads differ"),
        ({"objective": "maximise output_throughput at concurrency 100"}, "They share no objective"),
        ({"ceilings": ["ttft p95 < 9s at concurrency 50"]}, "The ceilings differ"),
        (
            {"load": [{"concurrency": 50, "requests": 30}, {"concurrency": 100, "requests": 400}]},
            "They share no objective at the same load",
        ),
    ],
)
def test_what_makes_two_studies_incomparable_is_said_first(slo: dict[str, object], warning: str) -> None:
    comparison = compare(BEFORE, _study(1200.0, 1210.0, slo=slo))

    assert any(each.startswith(warning) for each in comparison.warnings)
    assert ("Gain of B over A" in _titles(comparison)) == (warning == "The ceilings differ")


def test_a_ceiling_that_only_one_has_is_not_asked_of_the_other() -> None:
    other = _study(1200.0, 1210.0, slo={"ceilings": ["ttft p95 < 9s at concurrency 50"]})

    assert _section(compare(BEFORE, other), "Ceilings")["ttft p95 < 9s at concurrency 50"][0] == "not asked"


def test_a_study_without_trials_has_nothing_to_say() -> None:
    comparison = compare(empty(), BEFORE)

    assert _section(comparison, "Answers")["candidate"][0] == "-"
    assert _section(comparison, "Answers")["what binds"][0] == "-"
    assert _section(comparison, "Ceilings")["ttft p95 < 10s at concurrency 50"][0] == "not measured"
    assert next(iter(_section(comparison, "Gain of B over A").values()))[0] == "-"


HOSTILE = Comparison(
    "a <b>", ("<script>alert(1)</script>",), ("note",), (Section("t", ("", "x"), (("a|b", "\x1b[2J_`*"),)),)
)


def test_hostile_text_stays_text_everywhere() -> None:
    html, markdown = html_comparison(HOSTILE), markdown_comparison(HOSTILE)
    console = Console(width=80, record=True, color_system=None, file=io.StringIO())
    console.print(terminal_comparison(HOSTILE))

    assert "<script>" not in html
    assert "<script>" not in markdown
    assert "a\\|b" in markdown
    assert "\x1b" not in markdown + console.export_text()
    assert "note" in html


def test_a_comparison_is_written_as_its_name_ends(tmp_path: Path) -> None:
    comparison = compare(BEFORE, AFTER)
    write_comparison(comparison, tmp_path / "c.html")
    write_comparison(comparison, tmp_path / "c.md")

    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "c.md").read_text().startswith("# r1 and r1\n")
    with pytest.raises(ConfigError, match=r"must end in \.html or \.md"):
        write_comparison(comparison, tmp_path / "c.pdf")
