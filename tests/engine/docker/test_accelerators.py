import os
import subprocess
from pathlib import Path

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


# As in bug reports of vLLM Ascend, shortened: one chip a card, two of them, and the table of 26.0.
NPU_SMI_24 = """
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.0                   Version: 24.1.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B1               | OK            | 89.1        32                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3437 / 65536         |
+===========================+===============+====================================================+
| 1     910B1               | OK            | 90.0        33                0    / 0             |
| 0                         | 0000:01:00.0  | 0           0    / 0          59356/ 65536         |
+===========================+===============+====================================================+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| No running processes found in NPU 0                                                            |
+===========================+===============+====================================================+
| 1       0                 | 4711          | python3                  | 57600                   |
"""
NPU_SMI_25 = """
| npu-smi 25.2.0                   Version: 25.2.0                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     Ascend910           | OK            | 211.3       43                0    / 0             |
| 0     0                   | 0000:9D:00.0  | 7           0    / 0          61609/ 65536         |
+------------------------------------------------------------------------------------------------+
| 0     Ascend910           | OK            | -           44                0    / 0             |
| 1     1                   | 0000:9F:00.0  | 7           0    / 0          2887 / 65536         |
"""
NPU_SMI_26 = """
| npu-smi 26.0.rc1                            Version: 26.0.rc1                                                    |
+---------------------------+---------------+----------------------------------------------------------------------+
| NPU   Name                | Health        | Power(W)             Temp(C)                 Hugepages-Usage(page)   |
| Chip                      | Bus-Id        | AICore(%)            Memory-Usage(MB)        HBM-Usage(MB)           |
+===========================+===============+======================================================================+
| 0     910B4               | OK            | 82.6                 32                      0    / 0                |
| 0                         | 0000:C1:00.0  | 0                    0    / 0                2871 / 32768            |
+===========================+===============+======================================================================+
| NPU     Chip              | Process id    | Process name       | Process memory(MB)    | Process id in container |
+===========================+===============+======================================================================+
| 0       0                 | 1712733       | sglangschedul      | 48954                 | NA                      |
"""  # noqa: E501 - as it is printed


def asked(kind: Accelerator, folder: Path, chosen: tuple[str, ...] = (), **programs: str) -> str:
    """What the memory query of a kind prints where these programs are first on the path."""
    for name, text in programs.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        path.chmod(0o755)
    query = devices_of(node(gpus=2, gpu_ids=chosen, accelerator=kind)).memory_query
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(query, capture_output=True, text=True, env=environment, check=True).stdout


@pytest.mark.parametrize(
    ("shown", "told"),
    [
        (NPU_SMI_24, ["0, 3437", "1, 59356"]),
        (NPU_SMI_25, ["0, 61609", "1, 2887"]),
        (NPU_SMI_26, ["0, 2871"]),
    ],
)
def test_an_ascend_node_tells_the_memory_of_each_chip(tmp_path: Path, shown: str, told: list[str]) -> None:
    assert asked(Accelerator.ASCEND, tmp_path, npu_smi=shown).splitlines() == told


def test_what_the_firmware_of_an_ascend_chip_keeps_counts_as_free() -> None:
    assert 3437 < devices_of(node(gpus=2, accelerator="ascend")).reserved_mib < 59356


def test_a_neighbours_chips_are_not_asked_about(tmp_path: Path) -> None:
    assert asked(Accelerator.ASCEND, tmp_path, ("1",), npu_smi=NPU_SMI_25).splitlines() == ["1, 2887"]
    for card, mib in (("card2", 10), ("card10", 70000)):
        (tmp_path / card).write_text(f"{mib << 20}\n")
    files = f"{tmp_path}/card2\n{tmp_path}/card10"
    assert asked(Accelerator.AMD, tmp_path, ("1",), ls=files).splitlines() == ["1, 70000"]


def test_an_amd_node_tells_the_memory_of_each_card_in_order(tmp_path: Path) -> None:
    for card, mib in (("card2", 10), ("card10", 70000)):
        (tmp_path / card).mkdir()
        (tmp_path / card / "mem_info_vram_used").write_text(f"{mib << 20}\n")
    files = f"{tmp_path}/card2/mem_info_vram_used\n{tmp_path}/card10/mem_info_vram_used"
    assert asked(Accelerator.AMD, tmp_path, ls=files).splitlines() == ["0, 10", "1, 70000"]


def test_every_accelerator_can_be_asked_for_its_memory() -> None:
    silent = {kind for kind in Accelerator if not devices_of(node(gpus=1, accelerator=kind)).memory_query}
    assert silent == {Accelerator.NONE}
