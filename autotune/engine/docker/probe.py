"""Looks at a node from inside a short-lived container: ports, GPU memory, shared memory, network, disks.

Run as `python3 -c SOURCE JSON` in the engine's own image, so it needs Python 3.9 and nothing else. In: what
is asked, as JSON. Out: one JSON object on the last line of stdout. Changes nothing on the node, but for
shared-memory segments that began after `segments_before`, look like an engine's and are mapped by nobody.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
# torch, NCCL, Python's multiprocessing: what SGLang's processes put there.
_ENGINE_SEGMENT = re.compile(r"^(psm_|sem\.mp-|torch_|nccl-|cuda\.shm\.|sglang)")
_LISTENING = "0A"
_PROGRAM_S = 30


def main() -> None:
    """Answer one question."""
    asked = json.loads(sys.argv[1])
    give_up_s = time.monotonic() + asked.get("patience_s", 0)
    while True:
        found = look(asked)
        if not (found["held"] or found["gpus"].get("above")) or time.monotonic() >= give_up_s:
            break
        time.sleep(0.2)
    sys.stdout.write(json.dumps(found) + "\n")


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the node shows now."""
    found: dict[str, Any] = {
        "held": {str(port): holder_of(port) for port in asked.get("ports", []) if not is_free(port)},
        "first_free": first_free(asked.get("ranges", [])),
        "gpus": gpus_above(asked.get("memory_query", []), asked.get("most_mib", 0)),
        "segments": segments(),
    }
    if asked.get("segments_before") is not None:
        found["leaked"] = remove_leaked(found["segments"], asked["segments_before"])
    if asked.get("facts"):
        found["facts"] = facts(asked["facts"])
    return found


# ---- ports


def is_free(port: int) -> bool:
    """Whether a server could bind the port on every address; TIME_WAIT counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def first_free(ranges: list[tuple[int, int]]) -> int | None:
    """Return the first port of the first range that is free altogether, None if there is no such range."""
    for first, count in ranges:
        if all(is_free(port) for port in range(first, first + count)):
            return first
    return None


def holder_of(port: int) -> str:
    """Return who listens on a port, as far as /proc of the node shows it."""
    inodes = listening_inodes(port)
    for process in processes():
        if inodes & socket_inodes(process):
            return f"pid {process.name} ({command_of(process)})"
    return "an unknown process"


def processes() -> list[Path]:
    """Return the folders of all processes of the node."""
    return [path for path in Path("/proc").iterdir() if path.name.isdigit()]


def listening_inodes(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    tables = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
    rows = [line.split() for table in tables for line in text_of(table).splitlines()[1:]]
    return {row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port}


def socket_inodes(process: Path) -> set[str]:
    """Return the inodes of a process's sockets, none if it may not be looked at."""
    try:
        targets = [target_of(each) for each in (process / "fd").iterdir()]
    except OSError:
        return set()
    return {target[8:-1] for target in targets if target.startswith("socket:[")}


def target_of(link: Path) -> str:
    """Return what a link of /proc stands for, empty if the process has closed it meanwhile."""
    try:
        return os.readlink(link)  # noqa: PTH115 - no path
    except OSError:
        return ""


def command_of(process: Path) -> str:
    """Return the beginning of a process's command line."""
    return text_of(process / "cmdline").replace("\0", " ").strip()[:120] or "gone or hidden"


def text_of(path: Path) -> str:
    """Return a file's text, empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ---- GPUs


def gpus_above(query: list[str], most_mib: int) -> dict[str, Any]:
    """Return the GPUs with more memory in use than that and the driver's version, or why nobody knows."""
    if not query:
        return {}
    code, output = run(query)
    if code:
        return {"unknown": output.strip()[-300:]}
    rows = [line.split(",") for line in output.splitlines() if "," in line]
    above = {index.strip(): int(mib) for index, mib, *_ in rows if int(mib) > most_mib}
    drivers = sorted({row[2].strip() for row in rows if len(row) > 2})  # noqa: PLR2004 - the third column
    holders = compute_processes() if above else []
    return {"count": len(rows), "above": above, "driver": ", ".join(drivers) or None, "holders": holders}


def compute_processes() -> list[str]:
    """Return the processes that hold GPU memory, none if the driver does not tell."""
    code, output = run(["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"])
    pids = [] if code else [line.strip() for line in output.splitlines() if line.strip().isdigit()]
    return [f"pid {pid} ({command_of(Path('/proc') / pid)})" for pid in pids]


def run(argv: list[str]) -> tuple[int, str]:
    """Return a program's exit code and what it printed; the code is -1 if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - the launcher's own commands
            argv, capture_output=True, text=True, timeout=_PROGRAM_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout or done.stderr


# ---- shared memory


def segments() -> list[str]:
    """Return the names in /dev/shm."""
    return sorted(path.name for path in _SHARED_MEMORY.iterdir()) if _SHARED_MEMORY.exists() else []


def remove_leaked(now: list[str], before: list[str]) -> list[str]:
    """Remove an engine's segments that are new and mapped by nobody; return their names."""
    new = [name for name in set(now) - set(before) if _ENGINE_SEGMENT.match(name)]
    if not new:
        return []
    mapped = "\n".join(text_of(process / "maps") for process in processes())
    leaked = sorted(name for name in new if str(_SHARED_MEMORY / name) not in mapped)
    for name in leaked:
        (_SHARED_MEMORY / name).unlink(missing_ok=True)
    return leaked


# ---- what `autotune check` asks


def facts(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is true of the node before any launch."""
    return {
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "shm_bytes": size_of(_SHARED_MEMORY),
        "folders": {path: listing(Path(path)) for path in asked.get("folders", [])},
        "reached": {peer: reaches(*peer.rsplit(":", 1)) for peer in asked.get("peers", [])},
        "programs": {each: run(each.split()) for each in asked.get("programs", [])},
    }


def size_of(path: Path) -> int:
    """Return the size of a file system."""
    room = os.statvfs(path)
    return room.f_blocks * room.f_frsize


def listing(folder: Path) -> dict[str, int] | None:
    """Return name to size of the files below a folder, None if there is no such folder."""
    if not folder.is_dir():
        return None
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(files)}


def reaches(host: str, port: str) -> bool:
    """Whether a machine answers at all: a refusal is an answer, too."""
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
