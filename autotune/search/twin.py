"""The twin: what the simulator expects of a candidate, before a GPU second is spent on it.

In: a study whose space names a profile. Out: predictions of objectives, ceilings and memory for the sampler
(`gp.prior.Prior`), in virtual time and without noise. Runs the simulated scheduler. Invariants: one candidate
is predicted once; memory that does not suffice does not hide what the candidate would do if it did, since
the profile's reserves are its least certain numbers; the simulated launcher has no twin, which would be the
truth itself and make every simulated study look better than a real one.
"""

from collections.abc import Mapping
from typing import Any

from autotune.engine.dialects import dialect_of
from autotune.load.arrivals import LoadPoint
from autotune.load.workload import offer
from autotune.metrics import Measurement, measure
from autotune.request import OfferedLoad
from autotune.search.gp.prior import Prediction
from autotune.simulator.assembly import open_scheduler
from autotune.simulator.profile import Profile, read_profile
from autotune.simulator.scheduler import Turn, TurnKind
from autotune.simulator.startup import Ready, StartFailure, plan_start
from autotune.simulator.virtual import VirtualEndpoint
from autotune.slo import Slo, judge, violation
from autotune.space import Candidate, LauncherKind, SearchSpace
from autotune.study import Study

_ROOM_ERROR_GIB = 2.0
"""Standard error of the profile's reserves: they are bounded by launches that ran and some that did not."""
_NO_ROOM = -3.0
"""The room of what cannot start even without any reserve."""
_CAPTURED_SHARE = 0.7
"""The part of a chunk's activations that is needed at the start, whatever the load (simulator/startup.py)."""


def twin_of(study: Study) -> "Twin | None":
    """Return the study's twin, None without a profile or if every launch is simulated."""
    space = study.space
    if space.profile is None or space.launcher is LauncherKind.SIMULATED:
        return None
    return Twin(read_profile(space.profile), space, study.slo)


class Twin:
    """The simulator as a prior."""

    def __init__(self, profile: Profile, space: SearchSpace, slo: Slo) -> None:
        self._profile = profile
        self._exact = _without_noise_and_reserves(profile)
        self._space = space
        self._slo = slo
        self._loads: list[tuple[LoadPoint, OfferedLoad]] = [
            (point, offer(slo.workload, point, salt=0)) for point in slo.load
        ]
        self._known: dict[Candidate, Prediction] = {}

    def predict(self, params: Mapping[str, Any]) -> Prediction:
        """Return what the simulator expects; the values are None if nothing can be served."""
        candidate = Candidate.of(params)
        if candidate not in self._known:
            self._known[candidate] = self._simulate(candidate)
        return self._known[candidate]

    def _simulate(self, candidate: Candidate) -> Prediction:
        argv = dialect_of(self._space.engine).argv(
            self._space,
            candidate,
            rank=0,
            port=self._space.port,
            rendezvous_port=self._space.rendezvous_port,
        )
        match plan_start(self._exact, argv, seed=0).outcome:
            case StartFailure():
                return Prediction(None, {}, _NO_ROOM)
            case Ready() as ready:
                return self._serve(ready)

    def _serve(self, ready: Ready) -> Prediction:
        scheduler = open_scheduler(self._exact, ready, seed=0)
        largest = _LargestPass()
        endpoint = VirtualEndpoint(
            scheduler, request_s=self._exact.step.request_s, on_turn=largest, most_steps=None
        )
        measurements: dict[str, Measurement] = {}
        for point, load in self._loads:
            scheduler.flush_cache()
            result = endpoint.run(load)
            measurements[point.label] = measure(result.records, concurrency=point.concurrency)
        values, constraints = told(self._slo, measurements)
        return Prediction(values, constraints, self._room(ready, largest.new_tokens))

    def _room(self, ready: Ready, largest_pass: int) -> float:
        """Return what is left of the GPU's memory, less all reserves, in standard errors."""
        has, flags = self._profile.memory, ready.flags
        chunk = flags.chunk_tokens or flags.max_prefill_tokens
        active = max(_CAPTURED_SHARE * chunk, largest_pass / flags.dp)
        reserve_gib = has.fixed_reserve_gib + has.graph_reserve_gib * flags.decode_graph_max_batch
        reserve_gib += has.chunk_reserve_gib * active / 1024
        return (ready.capacity.available_gib - reserve_gib) / _ROOM_ERROR_GIB


def told(
    slo: Slo, measurements: Mapping[str, Measurement]
) -> tuple[tuple[float, ...] | None, dict[str, float]]:
    """Return values (None if an objective has none) and violations, as they would be told of a trial."""
    found = [
        goal.quantity.of(measurements[goal.quantity.load], slo.request_limits_s(goal.quantity.load))
        for goal in slo.goals
    ]
    values = tuple(value for value in found if value is not None)
    violations = {judged.ceiling: violation(judged) for judged in judge(slo, measurements).ceilings}
    return (values if len(values) == len(found) else None), violations


class _LargestPass:
    """Notes the most new tokens of one prefill pass."""

    def __init__(self) -> None:
        self.new_tokens = 0

    def __call__(self, turn: Turn) -> None:
        if turn.kind in {TurnKind.PREFILL, TurnKind.MIXED}:
            self.new_tokens = max(self.new_tokens, sum(piece.new for piece in turn.pieces))


def _without_noise_and_reserves(profile: Profile) -> Profile:
    step = {"noise_ratio": 0.0, "launch_noise_ratio": 0.0, "cold_start_s": 0.0}
    reserves = {"fixed_reserve_gib": 0.0, "chunk_reserve_gib": 0.0, "graph_reserve_gib": 0.0}
    return profile.model_copy(
        update={
            "step": profile.step.model_copy(update=step),
            "memory": profile.memory.model_copy(update=reserves),
        }
    )
