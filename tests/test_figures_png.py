"""Figures as files: PNG through resvg, refused without it or without a font; written whole."""

from __future__ import annotations

import functools
import os
import re
import stat
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from rsoup.errors import TargetError, UsageError
from rsoup.figures.drawing import FONT, INK, sheet, width_of, words
from rsoup.figures.front import front
from rsoup.figures.raster import format_of, png, save
from rsoup.figures.series import Axis, Mark

resvg = pytest.importorskip("resvg_py")
FIGURE = front([Mark(0, 1, label="one"), Mark(1, 0, label="two")], Axis("a"), Axis("b"))


def size(data: bytes) -> tuple[int, int]:
    """Width and height in a PNG's header."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def ink(svg: str) -> tuple[int, int]:
    """The first and last column of a drawing that is not white, at its own size."""
    image = pytest.importorskip("PIL.Image")
    import io

    box = image.open(io.BytesIO(png(svg, 1.0))).convert("L").point(lambda v: 255 if v < 200 else 0).getbbox()
    assert box is not None
    return box[0], box[2]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 3.0])
def test_a_png_has_the_figures_size(scale: float) -> None:
    """Its pixels are the view box's times the scale, and equal calls give equal bytes."""
    wide, tall = (float(part) for part in re.search(r'viewBox="0 0 (\S+) ([^"]+)"', FIGURE).groups())  # type: ignore[union-attr]
    data = png(FIGURE, scale)

    assert size(data) == pytest.approx((wide * scale, tall * scale), abs=1)
    assert data == png(FIGURE, scale)


def test_the_words_are_in_the_picture() -> None:
    """A figure with other labels is another picture: letters are drawn, not dropped."""
    other = front([Mark(0, 1, label="one"), Mark(1, 0, label="owt")], Axis("a"), Axis("b"))

    assert png(FIGURE) != png(other)


@pytest.mark.parametrize(
    "said", ["better →", "λ of the second ingredient, 0.25", "WWWW MMMM", "iiii llll", "± 0.3 …"]
)
@pytest.mark.parametrize("size", [11.0, 13.0])
def test_words_are_no_wider_than_they_are_thought(said: str, size: float) -> None:
    """The ink of a text ends where `width_of` says or before it, so that nothing planned by it collides."""
    left, right = ink(sheet("t", [words(20, 30, said, size=size, fill=INK)], 50, []))

    assert right - left <= 1.06 * width_of(said, size) + 1
    if "DejaVu" in FONT and os.path.exists("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"):
        assert right - left >= 0.75 * width_of(said, size)


def test_without_resvg_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """E0267 with what to install; an SVG needs nothing."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)

    with pytest.raises(UsageError) as found:
        png(FIGURE)
    assert found.value.code == "E0267"
    assert "pip install 'rewarded-soups[plot]'" in str(found.value)


def test_without_a_font_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where resvg finds no font, which it does not say, it is E0268 and no file comes into being."""
    fontless = functools.partial(resvg.svg_to_bytes, skip_system_fonts=True)
    monkeypatch.setattr(resvg, "svg_to_bytes", fontless)

    with pytest.raises(UsageError) as found:
        save(FIGURE, str(tmp_path / "front.png"))
    assert found.value.code == "E0268"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["front", "front.pdf", "front.svg.gz", "png", ".svg", "front.jpeg\x1b"])
def test_other_extensions_are_refused(name: str, tmp_path: Path) -> None:
    """E0269 before anything is drawn or written."""
    with pytest.raises(UsageError) as found:
        save("no svg at all", str(tmp_path / name))
    assert found.value.code == "E0269"
    assert "\x1b" not in str(found.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "found"), [("a.svg", "svg"), ("a.PNG", "png"), ("x/b.c.Svg", "svg"), ("png.png", "png")]
)
def test_the_extension_is_the_format(name: str, found: str) -> None:
    """Whatever its case."""
    assert format_of(name) == found


def test_files_hold_what_was_drawn(tmp_path: Path) -> None:
    """The SVG as it is in UTF-8, the PNG as `png` makes it; nothing else is left in the folder."""
    for name in ("front.svg", "front.png"):
        (tmp_path / name).write_text("old")
        save(FIGURE, str(tmp_path / name))

    assert (tmp_path / "front.svg").read_bytes() == FIGURE.encode()
    assert (tmp_path / "front.png").read_bytes() == png(FIGURE)
    assert sorted(os.listdir(tmp_path)) == ["front.png", "front.svg"]
    assert stat.S_IMODE(os.stat(tmp_path / "front.svg").st_mode) == 0o666 & ~current_umask()


def current_umask() -> int:
    """The process's umask."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """The file that a symbolic link names is replaced, not the link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "front.svg").symlink_to(tmp_path / "real" / "front.svg")
    save(FIGURE, str(tmp_path / "front.svg"))

    assert (tmp_path / "front.svg").is_symlink()
    assert (tmp_path / "real" / "front.svg").read_text() == FIGURE


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full the file is as it was, and nothing of the new one remains."""
    (tmp_path / "front.svg").write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TargetError) as found:
        save(FIGURE, str(tmp_path / "front.svg"))
    assert found.value.code == "E0602"
    assert (tmp_path / "front.svg").read_text() == "old"
    assert os.listdir(tmp_path) == ["front.svg"]


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """A folder, a pipe, and a folder that is not there, are a TargetError; nothing is written."""
    (tmp_path / "folder.svg").mkdir()
    os.mkfifo(tmp_path / "pipe.svg")
    for place in ("folder.svg", "pipe.svg", "nowhere/front.svg"):
        with pytest.raises(TargetError):
            save(FIGURE, str(tmp_path / place))
    assert sorted(os.listdir(tmp_path)) == ["folder.svg", "pipe.svg"]


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf"), 11.0])
def test_scales_without_sense_are_refused(wrong: float) -> None:
    """ValueError for a scale of nothing, of NaN, or so large that memory would not hold it."""
    with pytest.raises(ValueError, match="scale"):
        png(FIGURE, wrong)


def test_drawing_needs_no_resvg() -> None:
    """Figures are made without loading resvg, or anything else that is heavy."""
    import subprocess

    code = "import sys, rsoup.figures.front, rsoup.figures.raster, rsoup.figures.spider; print([m for m in ('resvg_py', 'numpy', 'torch') if m in sys.modules])"
    done: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60
    )

    assert done.stdout.strip() == "[]"
