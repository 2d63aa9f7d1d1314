import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.engine.docker import probe


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def program(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_port_is_held_by_whoever_listens_on_it() -> None:
    with listening() as server:
        port = port_of(server)
        assert not probe.is_free(port)
        holder = probe.holder_of(port)
    assert holder.startswith(f"pid {os.getpid()} (")
    assert probe.is_free(port)
    assert probe.holder_of(port) == "an unknown process"


def test_the_first_range_that_is_free_altogether_is_found() -> None:
    with listening() as server:
        port = port_of(server)
        assert probe.first_free([(port, 1)]) is None
        assert probe.first_free([(port - 1, 2), (0, 1)]) == 0
    assert probe.first_free([]) is None


def test_a_process_that_may_not_be_looked_at_holds_nothing(tmp_path: Path) -> None:
    assert probe.socket_inodes(tmp_path / "1") == set()
    assert probe.command_of(tmp_path / "1") == "gone or hidden"
    (tmp_path / "cmdline").write_bytes(b"python3\0-m\0" + b"x" * 200)
    assert probe.command_of(tmp_path) == ("python3 -m " + "x" * 200)[:120]


def test_gpus_with_more_memory_in_use_are_named_with_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = [
        program(
            tmp_path, "query", "echo '0, 1024, 570.1'; echo '1, 70000, 570.1'; echo; echo '2, 1025, 570.1'"
        )
    ]
    program(tmp_path, "nvidia-smi", f"echo {os.getpid()}; echo '[Insufficient Permissions]'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    found = probe.gpus_above(query, 1024)

    assert (found["count"], found["above"], found["driver"]) == (3, {"1": 70000, "2": 1025}, "570.1")
    assert [holder.partition(" (")[0] for holder in found["holders"]] == [f"pid {os.getpid()}"]
    assert probe.gpus_above(query, 70000)["holders"] == []


def test_a_driver_that_does_not_tell_is_unknown_and_none_is_asked_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path, "nvidia-smi", "echo NVML: Driver/library version mismatch >&2; exit 18")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert probe.gpus_above([broken], 0) == {"unknown": "NVML: Driver/library version mismatch"}
    assert probe.compute_processes() == []
    assert "No such file" in probe.gpus_above([str(tmp_path / "none")], 0)["unknown"]
    assert probe.gpus_above([], 0) == {}


def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_PROGRAM_S", 0.05)
    code, output = probe.run([program(tmp_path, "slow", "exec sleep 60")])
    assert code == -1
    assert "timed out" in output


def test_only_new_segments_of_an_engine_that_nobody_maps_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SHARED_MEMORY", tmp_path)
    names = ["psm_old", "psm_leaked", "torch_leaked", "nccl-mapped", "someone_elses"]
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 4096)
    with (tmp_path / "nccl-mapped").open("r+b") as file, mmap.mmap(file.fileno(), 0):
        leaked = probe.remove_leaked(probe.segments(), ["psm_old"])

    assert leaked == ["psm_leaked", "torch_leaked"]
    assert probe.segments() == ["nccl-mapped", "psm_old", "someone_elses"]
    assert probe.remove_leaked(["psm_old"], ["psm_old"]) == []


def test_a_node_without_shared_memory_has_no_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_SHARED_MEMORY", tmp_path / "none")
    assert probe.segments() == []


def test_a_machine_that_refuses_is_reached_and_one_that_is_not_there_is_not() -> None:
    with listening() as server:
        port = str(port_of(server))
        assert probe.reaches("127.0.0.1", port)
    assert probe.reaches("127.0.0.1", port)
    assert not probe.reaches("no-such-host.invalid", port)


def test_a_look_tells_only_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_SHARED_MEMORY", tmp_path)
    (tmp_path / "psm_1").touch()

    assert probe.look({}) == {"held": {}, "first_free": None, "gpus": {}, "segments": ["psm_1"]}
    assert probe.look({"segments_before": []})["leaked"] == ["psm_1"]
    assert probe.look({"facts": {"folders": []}})["facts"]["folders"] == {}


def test_the_facts_are_those_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.safetensors").write_bytes(b"12345")
    (tmp_path / "model" / "deep").mkdir()
    (tmp_path / "model" / "deep" / "b.json").write_bytes(b"{}")
    folders = [str(tmp_path / "model"), str(tmp_path / "none")]

    with listening() as server:
        peer = f"127.0.0.1:{port_of(server)}"
        found = probe.facts({"folders": folders, "peers": [peer], "programs": ["echo hello"]})

    assert found["folders"] == {folders[0]: {"a.safetensors": 5, "deep/b.json": 2}, folders[1]: None}
    assert found["reached"] == {peer: True}
    assert found["programs"] == {"echo hello": (0, "hello\n")}
    assert "lo" in found["interfaces"]
    assert found["shm_bytes"] == probe.size_of(Path("/dev/shm"))  # noqa: S108 - where POSIX shared memory is


def test_it_answers_in_one_last_line_and_needs_nothing_but_python(tmp_path: Path) -> None:
    asked = {"ports": [0], "facts": {"folders": [str(tmp_path)]}, "segments_before": []}
    source = Path(probe.__file__).read_text(encoding="utf-8").replace("/dev/shm", str(tmp_path))  # noqa: S108 - not there
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", source, json.dumps(asked)],
        capture_output=True,
        check=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["held"] == {}
    assert (found["segments"], found["leaked"], found["gpus"]) == ([], [], {})
    assert found["facts"]["folders"] == {str(tmp_path): {}}


@pytest.mark.parametrize(("patience_s", "is_held"), [(0, True), (20, False)])
def test_it_waits_for_a_port_as_long_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], patience_s: float, *, is_held: bool
) -> None:
    with listening() as server:
        port = port_of(server)
        monkeypatch.setattr(sys, "argv", ["-c", json.dumps({"ports": [port], "patience_s": patience_s})])
        monkeypatch.setattr("time.sleep", lambda _: server.close())
        probe.main()
    assert (str(port) in json.loads(capsys.readouterr().out)["held"]) is is_held
