import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from autotune.errors import ConfigError, InfrastructureError
from autotune.report.language import Language, speaking
from autotune.report.pictures import write_pictures
from autotune.report.plots.every import every_plot
from autotune.report.seen import Measurements
from tests.support import histories as made

PNG = b"\x89PNG\r\n\x1a\n"


def test_every_chart_becomes_a_png_and_an_svg(tmp_path: Path) -> None:
    history = made.improved(is_simulated=True)
    paths = write_pictures(history, tmp_path / "images")
    charts = sum(len(plot.charts) for plot in every_plot(Measurements(history)))
    assert len(set(paths)) == 2 * charts
    assert {"plane.png", "load-ttft-p95.svg", "slices-schedule-policy.png", "timeline.svg"} <= {
        path.name for path in paths
    }
    assert all(path.read_bytes().startswith(PNG) for path in paths if path.suffix == ".png")
    for path in paths:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - written a moment ago


def test_the_same_study_gives_the_same_svg(tmp_path: Path) -> None:
    history = made.empty()
    one, other = (write_pictures(history, tmp_path / name) for name in ("one", "other"))
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_pictures_speak_chinese_where_a_font_does(tmp_path: Path) -> None:
    fonts = {font.name for font in pytest.importorskip("matplotlib.font_manager").fontManager.ttflist}
    if not any("CJK" in name for name in fonts):
        pytest.skip("no Chinese font (Debian: fonts-noto-cjk)")
    with speaking(Language.CHINESE):
        paths = write_pictures(made.empty(), tmp_path)
    assert (tmp_path / "plane.png") in paths


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="cannot be written"):
        write_pictures(made.kept(), tmp_path / "file")


def test_without_matplotlib_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="pip install 'autotune\\[bench-png\\]'"):
        write_pictures(made.empty(), tmp_path)
