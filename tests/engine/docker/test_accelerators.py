import pytest

from autotune.engine.docker.accelerators import ALL, Devices, devices_of
from autotune.space import Accelerator, Node


def node(**fields: object) -> Node:
    return Node.model_validate({"name": "node0", **fields})


@pytest.mark.parametrize("accelerator", Accelerator)
def test_a_node_of_which_no_gpu_is_used_needs_nothing(accelerator: Accelerator) -> None:
    assert devices_of(node(accelerator=accelerator)) == Devices()


@pytest.mark.parametrize("accelerator", Accelerator)
def test_the_chosen_gpus_and_no_others_are_seen(accelerator: Accelerator) -> None:
    devices = devices_of(node(gpus=2, gpu_ids=["5", "6"], accelerator=accelerator))
    match accelerator:
        case Accelerator.NVIDIA:
            assert devices.requested == ("5", "6")
        case Accelerator.AMD:
            assert devices.environment == (("HIP_VISIBLE_DEVICES", "5,6"),)
        case Accelerator.ASCEND:
            assert devices.environment == (("ASCEND_RT_VISIBLE_DEVICES", "5,6"),)
            assert [file for file in devices.device_files if file[-1].isdigit()] == [
                "/dev/davinci5",
                "/dev/davinci6",
            ]
        case Accelerator.NONE:
            assert devices == Devices()


def test_without_a_choice_all_are_seen() -> None:
    assert devices_of(node(gpus=2)).requested == (ALL,)
    assert devices_of(node(gpus=2, accelerator="amd")).environment == ()
    assert devices_of(node(gpus=2, accelerator="ascend")).environment == (
        ("ASCEND_RT_VISIBLE_DEVICES", "0,1"),
    )


def test_only_what_can_tell_its_memory_is_asked_for_it() -> None:
    asked = {kind for kind in Accelerator if devices_of(node(gpus=1, accelerator=kind)).memory_query}
    assert asked == {Accelerator.NVIDIA}
