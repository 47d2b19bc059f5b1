"""Figures as files: SVG as it is, PNG drawn by resvg; written whole or not at all."""

from __future__ import annotations

import math
import os
from typing import Final, Literal

from rsoup.errors import UsageError, show_path
from rsoup.figures.drawing import FONT
from rsoup.storage.whole import write_whole

Format = Literal["svg", "png"]

_MOST: Final = 10.0
_PROBE: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24" viewBox="0 0 24 24">'
    f'<text x="2" y="18" font-size="16" font-family="{FONT}">{{}}</text></svg>'
)


def format_of(path: str) -> Format:
    """`svg` or `png`, by the name's extension. Raises UsageError E0269 for another; ask before drawing."""
    extension = os.path.splitext(path)[1].lower()
    if extension == ".svg":
        return "svg"
    if extension == ".png":
        return "png"
    raise UsageError(
        "E0269",
        "a figure is written as .svg or .png",
        where=show_path(path),
        hint="name it front.svg or front.png",
    )


def png(svg: str, scale: float = 2.0) -> bytes:
    """A figure of this package as PNG, `scale` pixels for each of its own; equal on one machine for equal SVG.

    Raises UsageError E0267 without resvg_py, E0268 where no font is found, since every word would be missing
    from the picture without a sign of it; ValueError for a scale that is not in (0, 10] and for text that is no
    SVG.
    """
    if not (math.isfinite(scale) and 0 < scale <= _MOST):
        raise ValueError(f"a scale is more than 0 and at most {_MOST:g}")
    try:
        from resvg_py import svg_to_bytes
    except ImportError:
        raise UsageError(
            "E0267", "drawing a PNG needs resvg_py, which is not installed", hint="pip install 'rewarded-soups[plot]', or name a .svg"
        ) from None  # fmt: skip
    written, blank = (svg_to_bytes(svg_string=_PROBE.format(words)) for words in ("Ag", ""))
    if bytes(written) == bytes(blank):
        raise UsageError(
            "E0268", "there is no font on this machine, so a PNG would have no words", hint="apt-get install fonts-dejavu-core, or name a .svg"
        )  # fmt: skip
    return bytes(svg_to_bytes(svg_string=svg, zoom=scale))


def save(svg: str, path: str, scale: float = 2.0) -> None:
    """Write a figure as its path's extension says; a file that is there is replaced in one step.

    Raises UsageError E0267 to E0269 as `png` and `format_of` do; TargetError E060x or AccessError E0704 where the
    place cannot be written or holds something else than a file.
    """
    data = svg.encode("utf-8") if format_of(path) == "svg" else png(svg, scale)
    write_whole(path, data)
