"""An image that is empty but for mount points: containers of it see this machine's own programs, read-only.

For engines that are too large to be copied into an image: what they need is mounted at its own path.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.testbed.bed import Bed

MACHINE_IMAGE = "this-machine:1"
_MERGED = ("bin", "lib", "lib64")
# /sbin is no link: Docker puts its init there.
_FOLDERS = ("sbin", "usr", "tmp", "proc", "sys", "dev", "root", "run", "var", "var/tmp")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_COPIED = ("etc/ld.so.cache", "etc/machine-id")


def load_machine_image(bed: Bed) -> None:
    """Put the image on every node of the bed that lacks it."""
    first, *others = (docker.APIClient(host.unix) for host in bed.hosts)
    if not first.images(MACHINE_IMAGE):
        name, tag = MACHINE_IMAGE.split(":")
        first.import_image_from_data(_tar(), repository=name, tag=tag, changes=["ENV PATH=/usr/bin"])
    for other in others:
        if not other.images(MACHINE_IMAGE):
            for step in other.load_image(first.get_image(MACHINE_IMAGE)):  # type: ignore[no-untyped-call]  # the stubs leave it bare
                assert "error" not in step, step
    for client in (first, *others):
        client.close()


def mounts_of(*folders: Path) -> list[dict[str, object]]:
    """Return this machine's programs and the folders as a search space's read-only mounts."""
    paths = {Path("/usr"), *(folder for folder in folders if not folder.is_relative_to("/usr"))}
    return [{"source": str(path), "target": str(path), "read_only": True} for path in sorted(paths)]


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry, content in _entries():
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _entries() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name in _FOLDERS:
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
        yield entry, b""
    for name in _MERGED:  # links into /usr, as on the machine itself
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, str(Path("/", name).readlink())
        yield entry, b""
    copied = {name: Path("/", name).read_bytes() for name in _COPIED}
    for name, content in (*((name, text.encode()) for name, text in _FILES.items()), *copied.items()):
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        yield entry, content
