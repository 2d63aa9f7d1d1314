import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from autotune.engine.sglang.preload_cuda import read_facts, shield

_TORCH = Path(__file__).parents[2] / "support" / "fake_torch"


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A torch with two GPUs, here and for the process that reads the facts."""
    monkeypatch.setenv("PYTHONPATH", str(_TORCH))
    monkeypatch.setenv("FAKE_GPUS", "2")
    monkeypatch.syspath_prepend(str(_TORCH))
    yield importlib.import_module("torch")
    for name in ("torch", "torch.cuda"):
        del sys.modules[name]


def test_what_is_asked_of_cuda_is_answered_without_opening_it(torch: ModuleType) -> None:
    shield()
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 2
    assert torch.cuda.current_device() == 0
    assert torch.cuda.get_device_name(1) == "FAKE 1"
    assert torch.cuda.get_device_capability() == (9, 0)
    assert torch.cuda.get_device_capability("cuda:1") == (9, 1)
    assert torch.cuda.get_device_properties("cuda").total_memory == 80 << 30
    assert torch.cuda.get_device_properties(1).uuid == "00000000-0000-0000-0000-000000000001"
    assert torch.get_device_module() is torch.cuda
    assert torch._C._get_accelerator() == "cuda"
    assert torch.opened == []


def test_the_real_functions_are_back_after_the_answers_are_taken_back(torch: ModuleType) -> None:
    before = torch.cuda.device_count, torch.get_device_module, torch._C._get_accelerator
    shield()()
    assert before == (torch.cuda.device_count, torch.get_device_module, torch._C._get_accelerator)


def test_without_a_gpu_nothing_is_replaced(torch: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPUS", "0")
    before = torch.cuda.device_count
    give_back = shield()
    assert torch.cuda.device_count is before
    give_back()
    assert read_facts() == {"devices": []}


def test_facts_are_plain_values(torch: ModuleType) -> None:
    facts = read_facts()
    assert [each["name"] for each in facts["devices"]] == ["FAKE 0", "FAKE 1"]
    assert torch.opened != []


def test_a_driver_that_cannot_be_asked_ends_the_preload(
    torch: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TORCH_FAILS", "1")
    with pytest.raises(RuntimeError, match="reads the GPUs' properties ended with 7"):
        shield()
    assert torch.opened == []


def test_without_torch_there_is_nothing_to_answer() -> None:
    shield()()
