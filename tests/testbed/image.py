"""An engine image without a registry: this interpreter, busybox, autotune with what its simulator needs.

In it: `python3 -m autotune...`, the fake engine as /app/fake_engine.py, and a stand-in nvidia-smi whose GPUs
are as full as /dev/shm/gpu-used-mib says. Built once, so that both nodes hold the same image.
"""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import docker

from tests.testbed.bed import Bed

IMAGE = "autotune-engine:1"
_ROOT = Path(__file__).parents[2]
_NEEDED = ("numpy", "psutil", "pydantic", "pyyaml", "starlette", "typer", "uvicorn")
_TOOLS = ("sh", "ls", "cat", "env", "sleep", "kill", "tr", "sed", "rm", "touch", "mkdir", "dd")
_LEFT_OUT = re.compile(
    r"/(test|tests|site-packages|idlelib|tkinter|ensurepip|lib2to3|config-[^/]*)(/|$)|\.a$"
)
_NVIDIA_SMI = """#!/bin/sh
# A stand-in: GPUs by index, all equally full.
case $NVIDIA_VISIBLE_DEVICES in
  all) gpus="0 1";;
  ''|void|none) echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."; exit 9;;
  *) gpus=$(echo "$NVIDIA_VISIBLE_DEVICES" | tr , ' ');;
esac
case "$*" in
  *compute-apps*) exit 0;;
  *memory.used*) used=$(cat /gpu/used-mib 2>/dev/null || echo 3);;
esac
for gpu in $gpus; do echo "${used:+$gpu, $used, }550.54.15"; done
"""


def load_everywhere(bed: Bed) -> None:
    """Put the image on every node of the bed that lacks it."""
    tar = bed.folder / "image.tar"
    if not tar.exists():
        _write(tar)
    first, *others = (docker.APIClient(host.unix) for host in bed.hosts)
    if not first.images(IMAGE):
        name, tag = IMAGE.split(":")
        first.import_image_from_file(str(tar), repository=name, tag=tag, changes=["ENV PYTHONUNBUFFERED=1"])
    for other in others:
        if not other.images(IMAGE):
            for step in other.load_image(first.get_image(IMAGE)):  # type: ignore[no-untyped-call]  # the stubs leave it bare
                assert "error" not in step, step
    for client in (first, *others):
        client.close()


def _write(path: Path) -> None:
    part = path.with_suffix(".part")
    with tarfile.open(part, "w") as tar:
        for source, target in _files():
            tar.add(source, target, recursive=False)
        for place in ("bin", "usr/bin"):  # the interpreter may lie in either
            for tool in _TOOLS:
                _link(tar, f"{place}/{tool}", "/bin/busybox")
            _link(tar, f"{place}/python3", str(Path(sys.executable).resolve()))
        script = path.with_name("nvidia-smi")
        script.write_text(_NVIDIA_SMI)
        script.chmod(0o755)
        tar.add(script, "bin/nvidia-smi")
        for folder in ("tmp", "proc", "sys", "dev", "root"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/nsswitch.conf", "hosts: files dns\n"),
        ):
            file = path.with_name(Path(name).name)
            file.write_text(text)
            tar.add(file, name)
    part.replace(path)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)


def _files() -> Iterator[tuple[Path, str]]:
    interpreter, library = Path(sys.executable).resolve(), Path(sysconfig.get_path("stdlib"))
    site = _site_of(interpreter)
    yield interpreter, str(interpreter)
    yield Path("/bin/busybox"), "bin/busybox"
    modules = [*_below(library), *_packages()]
    shared = [path for path in modules if ".so" in path.suffixes]
    for path in modules:
        yield path, str(site / _in_site(path)) if _is_package(path) else str(path)
    for path in _below(_ROOT / "autotune"):
        yield path, str(site / path.relative_to(_ROOT))
    yield _ROOT / "tests/support/fake_engine.py", "app/fake_engine.py"
    for path in sorted(_libraries([interpreter, *shared])):
        yield path.resolve(), str(path)


def _site_of(interpreter: Path) -> Path:
    """Return where an interpreter looks for packages; Debian's has a place of its own."""
    asked = [str(interpreter), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())


def _below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _LEFT_OUT.search(str(path)[len(str(folder)) :]):
            yield path


def _packages() -> Iterator[Path]:
    for name in sorted(_closure(_NEEDED)):
        for file in importlib.metadata.files(name) or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file() and not _LEFT_OUT.search(f"/{file}"):
                yield path


def _closure(names: Iterable[str]) -> set[str]:
    """Return distributions with all that they require here; extras and other platforms are left out."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.split(r"[^\w.-]", waiting.pop())[0].lower().replace("_", "-")
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform
        found.add(name)
        waiting += [each for each in needs if "extra ==" not in each]
    return found


def _is_package(path: Path) -> bool:
    return "site-packages" in path.parts


def _in_site(path: Path) -> Path:
    return Path(*path.parts[path.parts.index("site-packages") + 1 :])


def _libraries(programs: Iterable[Path]) -> set[Path]:
    """Return the system's shared libraries that the programs open; wheels bring their own beside them."""
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    paths = set(re.findall(r"(?:=> |^\s*)(/\S+) \(0x", done.stdout, re.MULTILINE))
    return {Path(path) for path in paths if not _is_package(Path(path))}
