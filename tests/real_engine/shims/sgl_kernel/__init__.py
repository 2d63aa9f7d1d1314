"""Stands in for SGLang's CPU kernels, which are not published: names are there, calls are refused."""

from collections.abc import Callable


def __getattr__(name: str) -> Callable[..., None]:
    if not name.endswith("_cpu"):
        raise AttributeError(name)

    def stand_in(*_: object, **__: object) -> None:
        raise NotImplementedError(f"stand-in called: sgl_kernel.{name}")

    return stand_in
