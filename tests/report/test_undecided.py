from typing import Any

import pytest

from autotune.interval import SeenShare
from autotune.metrics import opening_wave
from autotune.report.undecided import load_factor, remedy_text
from autotune.slo import ERROR_RATE, CeilingVerdict, Decision, Slo
from autotune.slo.verdict import decide_share
from tests.support import histories as made

STUDY = made.make_study()


def judged(share: float, independent: float) -> CeilingVerdict:
    return CeilingVerdict(
        ceiling=STUDY.slo.ceilings[0].text,
        decision=Decision.UNDECIDED,
        value=9.8,
        limit=10.0,
        margin_ratio=0.02,
        samples=250,
        share_over=share,
        independent_samples=independent,
        requests=independent,
    )


@pytest.mark.parametrize("share", [0.0, 0.02, 0.09])
def test_so_much_load_decides_and_a_little_less_does_not(share: float) -> None:
    verdict = judged(share, 50.0)

    factor = load_factor(STUDY.slo, verdict)

    assert factor is not None
    decided = [
        decide_share(STUDY.slo.ceilings[0], SeenShare(share, 50.0 * times, 50.0 * times), ERROR_RATE)
        for times in (factor, factor / 1.06)
    ]
    assert decided[0] is not Decision.UNDECIDED
    assert decided[1] is Decision.UNDECIDED


def test_a_share_at_the_limit_is_not_promised_to_be_decided() -> None:
    assert load_factor(STUDY.slo, judged(0.05, 250.0)) is None
    assert remedy_text(STUDY.slo, judged(0.05, 250.0)) == (
        "To decide it, give concurrency 50 more requests than 300 in the SLO file; "
        "a value so near to its limit may stay undecided."
    )


def test_a_load_point_that_is_limited_by_time_gets_more_time() -> None:
    changes: dict[str, Any] = {"load": [{"concurrency": 50, "duration_s": 60.0}]}
    slo = Slo.model_validate(made.SLO | changes)

    assert "more duration_s than 60 in the SLO file" in remedy_text(slo, judged(0.0, 50.0))


def test_so_many_requests_are_asked_for_that_what_counts_without_the_opening_wave_decides() -> None:
    few: dict[str, Any] = {"load": [{"concurrency": 50, "requests": 60}]}
    slo = Slo.model_validate(made.SLO | few)
    verdict = judged(0.0, 30.0)
    factor = load_factor(slo, verdict)

    text = remedy_text(slo, verdict)

    assert factor is not None
    asked = float(text.split("about ")[1].split(" ")[0])
    counted = asked - opening_wave(int(asked), 50)
    assert counted >= 60 * factor
