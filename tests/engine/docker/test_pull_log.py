from pathlib import Path

from autotune.engine.docker.pull_log import PullLog


def test_new_statuses_are_written_and_repeated_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "trial" / "pull.log"
    log = PullLog(path)
    log({"status": "Pulling from tiny", "id": "1"})
    log({"status": "Downloading", "id": "0a", "progress": "[=>   ] 1MB/4MB"})
    for _ in range(100):
        log({"status": "Downloading", "id": "0a", "progress": "[==>  ] 2MB/4MB"})
    log({"status": "Pull complete", "id": "0a"})
    log({"status": "Status: Downloaded newer image"})
    assert path.read_text().splitlines() == [
        "1 Pulling from tiny",
        "0a Downloading [=>   ] 1MB/4MB",
        "0a Pull complete",
        "Status: Downloaded newer image",
    ]


def test_without_a_pull_there_is_no_file(tmp_path: Path) -> None:
    PullLog(tmp_path / "trial" / "pull.log")
    assert list(tmp_path.iterdir()) == []
