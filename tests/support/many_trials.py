"""A made-up study of any size, with everything a report can show: what its size is tested and timed on."""

import numpy as np

from autotune.failure import FailureKind
from autotune.record import Role
from autotune.search.answer import AnswerKind
from autotune.search.confirmation import NumberedTrial
from autotune.search.gains import Gain
from autotune.search.study_history import StudyHistory
from autotune.space import FlagValue
from tests.support import histories as made

FAILED_SHARE = 0.1


def many_trials(count: int) -> StudyHistory:
    """A study whose trial 1 won among `count`, a tenth of them crashed; four confirmations follow."""
    study, chance = made.make_study(slo=made.TWO_OBJECTIVES), np.random.default_rng(7)
    trials = [made.trial(study, 0, {}, 1000.0, 8.0, role=Role.BASELINE)]
    trials.append(made.trial(study, 1, made.FASTER, 1150.0, 6.0))
    trials += [_one(number, chance) for number in range(2, count)]
    pairs: list[tuple[int, dict[str, FlagValue], float, float]] = [
        (0, {}, 1000.0, 8.0),
        (1, made.FASTER, 1150.0, 6.0),
    ] * 2
    for number, (confirms, flags, throughput_tps, ttft_s) in enumerate(pairs, start=count):
        trials.append(
            made.trial(
                study, number, flags, throughput_tps, ttft_s, role=Role.CONFIRMATION, confirms=confirms
            )
        )
    winner = made.confirmed(study, 1, 1150.0, 6.0, gain=Gain(estimate=0.15, low=0.11, high=0.19))
    answer = made.answered(AnswerKind.IMPROVED, 1, made.confirmed(study, 0, 1000.0, 8.0), winner)
    return made.history(study, *trials, answer=answer)


def _one(number: int, chance: np.random.Generator) -> NumberedTrial:
    size = 64 * int(chance.integers(16, 512))
    flags: dict[str, FlagValue] = {
        "chunked-prefill-size": size,
        "schedule-policy": ("fcfs", "lpm")[chance.integers(2)],
    }
    if chance.random() < FAILED_SHARE:
        return made.failed(
            number, FailureKind.NO_KV_MEMORY, "RuntimeError: Not enough memory", candidate=flags
        )
    throughput_tps = 700 + 300 * (size / 32768) ** 0.5 + float(chance.normal(0, 30))
    ttft_s = 4 + 8 * size / 32768 + float(chance.normal(0, 0.7))
    return made.trial(made.make_study(slo=made.TWO_OBJECTIVES), number, flags, throughput_tps, ttft_s)
