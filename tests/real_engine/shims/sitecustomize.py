"""Lets SGLang start on a machine without a GPU. Python imports this by itself where it is on PYTHONPATH.

AUTOTUNE_SHIM_STUBS: packages that SGLang imports at start and never calls on this path (torchvision for
images, soundfile for audio, triton for GPU kernels, whose decorators are passed through). Installed ones win.
AUTOTUNE_SHIM_MODELS: the only files of sglang.srt.models to import; the others would triple the start.
Processes are forked instead of spawned, since there is no CUDA context that a fork would break.
"""

import importlib.abc
import importlib.machinery
import multiprocessing
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

STUBS = set(filter(None, os.environ.get("AUTOTUNE_SHIM_STUBS", "").split(",")))
MODELS = set(filter(None, os.environ.get("AUTOTUNE_SHIM_MODELS", "").split(",")))
MODEL_PREFIX = "sglang.srt.models."


class AnyClass(type):
    """A class that has every attribute, so that its name can stand in annotations and defaults."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class Base(metaclass=AnyClass):
    def __init__(self, *_: object, **__: object) -> None:
        pass


class Stub(types.ModuleType):
    """A package that holds whatever is looked up in it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__version__ = "0.0.0"
        self.__file__ = __file__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self.__name__}.{name}"
        value = AnyClass(name, (Base,), {}) if name[:1].isupper() else self.member(full)
        setattr(self, name, value)
        return value

    def member(self, full: str) -> Any:
        return Decorator(full) if full.startswith("triton.") else refusing(full)


class Decorator(Stub):
    """A name that can be used as a decorator, with and without arguments."""

    def __call__(self, *given: Any, **options: object) -> Any:
        if len(given) == 1 and callable(given[0]) and not options:
            return given[0]
        return lambda function=None, *_, **__: function


def refusing(full: str) -> Callable[..., None]:
    def stand_in(*_: object, **__: object) -> None:
        raise NotImplementedError(f"stand-in called: {full}")

    return stand_in


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".", maxsplit=1)[0] in STUBS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Stub:
        return Stub(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def fork_instead_of_spawn() -> None:
    original = multiprocessing.set_start_method

    def set_start_method(method: str | None, *, force: bool = False) -> None:
        original("fork" if method == "spawn" else method, force=force)

    multiprocessing.set_start_method = set_start_method  # type: ignore[assignment] # narrower on purpose


def import_only(wanted: set[str]) -> None:
    original = pkgutil.iter_modules

    def iter_modules(path: Any = None, prefix: str = "") -> Iterator[pkgutil.ModuleInfo]:
        for module in original(path, prefix):
            if prefix != MODEL_PREFIX or module.name.removeprefix(prefix) in wanted:
                yield module

    pkgutil.iter_modules = iter_modules


sys.meta_path.append(Finder())  # appended: a really installed package wins
if STUBS:
    fork_instead_of_spawn()
if MODELS:
    import_only(MODELS)
