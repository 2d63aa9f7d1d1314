import pytest

from autotune.engine.docker.faults import UnreachableError, kind_of
from autotune.engine.docker.node import _as_process_code, _reference, probe_output
from autotune.failure import FailureKind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            'invalid mount config for type "bind": bind source path does not exist: /data/models',
            FailureKind.BIND_SOURCE_MISSING,
        ),
        (
            'Conflict. The container name "/t1" is already in use by container "0a". You have to remove it.',
            FailureKind.NAME_TAKEN,
        ),
        ("No such image: lmsysorg/sglang:v0.5.99", FailureKind.IMAGE_MISSING),
        ("manifest for lmsysorg/sglang:v0.5.99 not found: manifest unknown", FailureKind.IMAGE_MISSING),
        (
            'could not select device driver "" with capabilities: [[gpu]]',
            FailureKind.DRIVER_ERROR,
        ),
        (
            "nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
            FailureKind.DRIVER_ERROR,
        ),
        (
            "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=13.0",
            FailureKind.DRIVER_ERROR,
        ),
        ("Unknown runtime specified nvidia", FailureKind.DRIVER_ERROR),
        (
            'error gathering device information while adding custom device "/dev/kfd"',
            FailureKind.DRIVER_ERROR,
        ),
        (
            "mkdir /var/lib/docker/overlay2/0a-init: no space left on device",
            FailureKind.DISK_FULL,
        ),
        ("error setting rlimit type 8: operation not permitted", None),
    ],
)
def test_what_a_docker_engine_says_is_a_known_kind_of_failure_or_none(
    text: str, kind: FailureKind | None
) -> None:
    assert kind_of(text) is kind


def test_a_refusal_is_another_failure_than_silence() -> None:
    assert UnreachableError("a", "x", is_refused=True).kind is FailureKind.DAEMON_UNREACHABLE
    assert UnreachableError("a", "x", is_refused=False).kind is FailureKind.NODE_LOST


def test_failures_of_a_node_say_nothing_about_a_candidate() -> None:
    assert FailureKind.NODE_LOST.is_of_the_node
    assert not FailureKind.CONTAINER_OUT_OF_MEMORY.is_of_the_node


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("lmsysorg/sglang:v0.5.23", ("lmsysorg/sglang", "v0.5.23")),
        ("lmsysorg/sglang", ("lmsysorg/sglang", "latest")),
        ("registry:5000/sglang", ("registry:5000/sglang", "latest")),
        ("sglang@sha256:0a1b", ("sglang@sha256:0a1b", None)),
    ],
)
def test_an_image_is_pulled_by_the_name_that_docker_understands(
    image: str, reference: tuple[str, str | None]
) -> None:
    assert _reference(image) == reference


@pytest.mark.parametrize(("code", "as_process"), [(0, 0), (1, 1), (137, -9), (143, -15), (255, 255)])
def test_an_exit_by_a_signal_looks_as_that_of_a_process(code: int, as_process: int) -> None:
    assert _as_process_code(code) == as_process


def test_a_banner_above_the_answer_does_not_matter() -> None:
    assert probe_output('== CUDA ==\nlicense {\n\n{"held": {}}\n') == {"held": {}}
