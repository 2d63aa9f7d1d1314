"""How a launch proceeds and how it can fail: start phases, failure kinds, and a failure with its evidence.

Pure. A failure's kind comes from a known log line or from how the process ended; what matches nothing is
CRASHED with the log's tail, never a guess.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class StartPhase(StrEnum):
    """The phases of a launch, in order; each is named by what the engine is busy with.

    IMAGE comes before it: its image is found or pulled, and its nodes are looked at.
    """

    IMAGE = "image"
    PROCESS = "process"
    RENDEZVOUS = "rendezvous"
    WEIGHTS = "weights"
    KV_POOL = "kv_pool"
    GRAPH_CAPTURE = "graph_capture"
    WARM_UP = "warm_up"
    SERVING = "serving"


class FailureKind(StrEnum):
    """Why an engine failed. What matches no known line is CRASHED, never a guess."""

    BAD_ARGUMENT = "bad_argument"
    MODEL_MISSING = "model_missing"
    NO_KV_MEMORY = "no_kv_memory"
    OUT_OF_MEMORY_LOADING = "out_of_memory_loading"
    OUT_OF_MEMORY_CAPTURE = "out_of_memory_capture"
    OUT_OF_MEMORY_SERVING = "out_of_memory_serving"
    GPU_MEMORY_HELD = "gpu_memory_held"
    PORT_BUSY = "port_busy"
    RENDEZVOUS_TIMEOUT = "rendezvous_timeout"
    WARM_UP_FAILED = "warm_up_failed"
    NOT_READY = "not_ready"
    SERVES_NOTHING = "serves_nothing"
    HANG = "hang"
    CONTAINER_OUT_OF_MEMORY = "container_out_of_memory"
    IMAGE_MISSING = "image_missing"
    BIND_SOURCE_MISSING = "bind_source_missing"
    NAME_TAKEN = "name_taken"
    DRIVER_ERROR = "driver_error"
    DISK_FULL = "disk_full"
    NODE_LOST = "node_lost"
    DAEMON_UNREACHABLE = "daemon_unreachable"
    CRASHED = "crashed"

    @property
    def is_of_the_node(self) -> bool:
        """Whether it says nothing about the candidate, which another launch may serve well."""
        return self in _OF_THE_NODE


_OF_THE_NODE = frozenset(
    {
        FailureKind.IMAGE_MISSING,
        FailureKind.BIND_SOURCE_MISSING,
        FailureKind.NAME_TAKEN,
        FailureKind.DRIVER_ERROR,
        FailureKind.DISK_FULL,
        FailureKind.NODE_LOST,
        FailureKind.DAEMON_UNREACHABLE,
    }
)


class EngineFailure(BaseModel):
    """A typed failure with its evidence: the decisive log line, the log's tail, the exit code."""

    model_config = ConfigDict(frozen=True)

    kind: FailureKind
    phase: StartPhase
    line: str
    rank: int = 0
    exit_code: int | None = None
    waited_s: float = 0.0
    log_tail: tuple[str, ...] = ()
    minimum_mem_fraction: float | None = None


class LiveRefusedError(Exception):
    """A running engine did not set a flag; it serves on, and what it stands at is not known."""


class EngineError(Exception):
    """The engine failed; caught once, in trial.py, and turned into a FAILED record."""

    def __init__(self, failure: EngineFailure) -> None:
        self.failure = failure
        super().__init__(f"{failure.kind}: {failure.line}")
