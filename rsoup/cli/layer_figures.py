"""The pictures of `rsoup check`: how far each layer moved, and in which direction against the others."""

from __future__ import annotations

import math
import os
from itertools import combinations

from rsoup.errors import TargetError, UsageError, show_path
from rsoup.family.checking import CheckResult
from rsoup.figures.series import Layer

_MOST_PAIRS = 32


def check_target(path: str | None, *, headers: bool, overwrite: bool) -> None:
    """Raise UsageError E0269, E0270 (nothing is measured), TargetError E0601, before anything is read."""
    if path is None:
        return
    from rsoup.figures.raster import format_of

    format_of(path)
    if headers:
        raise UsageError("E0270", "--headers measures nothing to draw", hint="leave out --headers or --plot")
    for place in (path, beside(path)):
        if os.path.lexists(place) and not overwrite:
            raise TargetError(
                "E0601", "the output exists", where=show_path(place), hint="--overwrite, or another name"
            )


def beside(path: str) -> str:
    """Where the cosines go: `layers.svg` → `layers-cosines.svg`."""
    stem, ending = os.path.splitext(path)
    return f"{stem}-cosines{ending}"


def write(path: str | None, result: CheckResult) -> list[str]:
    """The paths written: the distances, and the cosines where there are several checkpoints.

    Raises UsageError E0270 where no base was there to measure from, and what writing a figure raises.
    """
    if path is None:
        return []
    from rsoup.figures.layers import layers
    from rsoup.figures.raster import save

    found = result.measures or result.adapters
    if found is None or not found.layers:
        raise UsageError("E0270", "there are no distances from a base to draw", hint="--base BASE")
    names = list(result.names)
    parts = [
        Layer(part.name, tuple(_finite(value) for value in (part.relative or part.absolute)))
        for part in found.layers
    ]
    save(layers(parts, names, what="‖θ − base‖ / ‖base‖"), path)
    pairs = list(combinations(range(len(names)), 2))[:_MOST_PAIRS]
    turned = [
        Layer(part.name, tuple(part.cosine[i][j] for i, j in pairs)) for part in found.layers if part.cosine
    ]
    if not any(value is not None for layer in turned for value in layer.values):
        return [path]
    labels = [f"{names[i]} · {names[j]}" for i, j in pairs]
    save(layers(turned, labels, what="cosine between the updates", zero=False), beside(path))
    return [path, beside(path)]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
