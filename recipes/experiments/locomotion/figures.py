"""The figures of the page on locomotion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pictures
from cells import Cell
from evidence import Against
from tables import SHOWN


def draw(
    final: Sequence[Cell], along: Sequence[Cell], curve: Sequence[Against], folder: Path
) -> dict[str, Path]:
    """Every figure in `folder`, by name."""
    first = final[0]
    compare = {"MORL": "morl", "base": "base-alone"}
    drawn = pictures.draw(
        [first], {kind: folder / f"{kind}.svg" for kind in ("front", "connectivity")}, ingredients=SHOWN, compare=compare
    )  # fmt: skip
    drawn += pictures.draw(
        [first], {"front": folder / "attempts.svg"}, ingredients=SHOWN,
        compare={"Bone Soup": "bone-0.7", "waypoint": "waypoint", "MORL first": "init"},
    )  # fmt: skip
    drawn.append(pictures.advantage_over_seeds(curve, folder / "advantage.svg", over="MORL"))
    seed = [cell for cell in along if cell.seed == along[0].seed] if along else []
    if seed:
        drawn += pictures.draw(seed, {"training": folder / "training.svg"}, ingredients=SHOWN)
    return {path.stem: path for path in drawn}
