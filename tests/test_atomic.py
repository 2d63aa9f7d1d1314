import stat
from pathlib import Path

import pytest

from autotune.atomic import replace_text
from autotune.errors import InfrastructureError


def test_the_text_replaces_the_old_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.txt"
    replace_text(path, "old")
    replace_text(path, "f\u00fcr\n")
    assert path.read_bytes() == "f\u00fcr\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_set_before_the_file_appears(tmp_path: Path) -> None:
    replace_text(tmp_path / "run.sh", "#!/bin/sh\n", mode=0o755)
    assert stat.S_IMODE((tmp_path / "run.sh").stat().st_mode) == 0o755


def test_a_target_that_cannot_be_replaced_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InfrastructureError, match="folder cannot be written"):
        replace_text(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_made_is_an_infrastructure_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InfrastructureError):
        replace_text(tmp_path / "file" / "report.txt", "text")
