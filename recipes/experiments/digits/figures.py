"""The figures of the page on digits, by `rsoup front --plot`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pictures
import plan
from evidence import Against
from tables import Settings, ordered, title

NAMES = {2: ("0-4", "5-9"), 3: ("0-2", "3-5", "6-9"), 5: ("0-1", "2-3", "4-5", "6-7", "8-9")}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the first seed of a setting: its kind, what it is compared with, what it shows."""

    name: str
    kind: str
    key: tuple[str, int]
    said: str
    compare: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


_MORL = {"MORL": "morl", "base": "base-alone"}
_SMOOTH = ("--smooth",)
FIGURES = (
    *(Figure(f"front-{n}", "front", ("n2", n), "Soups, MORL, the base", _MORL, _SMOOTH) for n in plan.LENGTHS),
    Figure("front-strong", "front", ("strong", 100), "Soups, MORL, the base", _MORL, _SMOOTH),
    Figure("front-weak", "front", ("weak", 200), "Soups, MORL, the base", _MORL),
    Figure("connectivity-400", "connectivity", ("n2", 400), "Both rewards along λ"),
    Figure("connectivity-weak", "connectivity", ("weak", 200), "Both rewards along λ"),
    Figure("front-bone", "front", ("n2", 100), "Bone Soup", {"MORL": "morl", "Bone Soup": "bone"}),
    Figure(
        "front-tried", "front", ("n2", 100), "Other attempts",
        {"MORL": "morl", "MORL waypoint": "waypoint", "MORL initialisation": "init", "scaled by 2": "scaled-2.0"},
    ),
    Figure("spider-n3", "spider", ("n3", 100), "Experts, the uniform soup, MORL", {"MORL": "morl"}),
    Figure("spider-n5", "spider", ("n5", 100), "Experts, the uniform soup, MORL", {"MORL": "morl"}),
    Figure("training", "training", ("n2", 400), "The soups along training"),
)  # fmt: skip
CURVES = (("n2", 25), ("n2", 100), ("n2", 400), ("strong", 100), ("n3", 100), ("n5", 100))


def draw(found: Settings, curves: Mapping[tuple[str, int], list[Against]], folder: Path) -> dict[str, str]:
    """The figures of the first seed, and the advantage over all seeds: file → caption."""
    captions: dict[str, str] = {}
    for one in FIGURES:
        if one.key not in found:
            continue
        cell = found[one.key][0]
        cells = [cell]
        if one.kind == "training":
            steps = [key for key in ordered(found) if key[0] == one.key[0]]
            cells = [c for key in steps for c in found[key] if c.name == cell.name]
        groups = NAMES[len(cell.rewards)]
        made = pictures.draw(
            cells, {one.kind: folder / f"{one.name}.svg"}, ingredients=groups, axes=[f"digits {name}" for name in groups],
            compare=one.compare, options=one.options,
        )  # fmt: skip
        captions |= {path.name: f"{one.said}: {title(*one.key)}, seed {cell.seed}" for path in made}
    for key in CURVES:
        if key in curves and len(found[key]) > 1:
            path = folder / f"advantage-{key[0]}-{key[1]}.svg"
            pictures.advantage_over_seeds(curves[key], path, over="MORL")
            captions[path.name] = f"Soups less M trainings, {len(found[key])} seeds: {title(*key)}"
    return captions
