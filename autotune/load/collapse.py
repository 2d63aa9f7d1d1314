"""What a load shows of an engine that lives and serves no more: it fell silent, or fails every request. Pure.

In: a `LoadResult`. Out: the `EngineFailure`, None where the engine served.
"""

from autotune.failure import EngineFailure, FailureKind, StartPhase
from autotune.request import LoadResult, RequestFailureKind


def hang(result: LoadResult) -> EngineFailure | None:
    """Return the failure of an engine that fell silent under load, None if it did not."""
    if result.silent_s is None:
        return None
    failures = [record.failure for record in result.records if record.failure is not None]
    open_requests = sum(failure.kind is RequestFailureKind.STOPPED for failure in failures)
    line = f"no byte of any answer for {result.silent_s:.3g} s with {open_requests} requests in flight"
    return EngineFailure(kind=FailureKind.HANG, phase=StartPhase.SERVING, line=line, waited_s=result.silent_s)


def serves_nothing(result: LoadResult) -> EngineFailure | None:
    """Return the failure of an engine that is reached and answers no request well, None if it does."""
    failures = [record.failure for record in result.records]
    first = next((failure for failure in failures if failure is not None), None)
    if first is None or not all(failures):
        return None
    line = f"all {len(failures)} requests failed, the first with {first.kind}: {first.message}"
    return EngineFailure(kind=FailureKind.SERVES_NOTHING, phase=StartPhase.SERVING, line=line)
