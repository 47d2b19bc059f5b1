"""The figures of the page on the language model, by `rsoup front --plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pictures
from cells import Cell
from tables import NAMES, TITLES, Curves, Groups, equal_to_factors, steps_of


def draw(found: Groups, curves: Curves, folder: Path) -> dict[str, str]:
    """The figures of the first seed, and the advantage over all seeds: name → caption."""
    captions: dict[str, str] = {}
    morl = {"MORL": "morl", "base": "base-alone"}

    def one(cells: Sequence[Cell], kind: str, name: str, said: str, **more: object) -> None:
        pictures.draw(cells, {kind: folder / f"{name}.svg"}, ingredients=NAMES, **more)  # type: ignore[arg-type]
        captions[name] = f"{said} (seed {cells[0].seed})"

    lora, other, full = (found[group][0] for group in TITLES)
    one([lora], "front", "front-lora", "LoRA with one initialisation: soups of two trainings, MORL at eleven μ", compare=morl, options=["--smooth"])  # fmt: skip
    one([other], "front", "front-other", "LoRA with two initialisations", compare={"MORL": "morl", "averaged factors": "factors"})  # fmt: skip
    one([equal_to_factors(lora)], "front", "front-factors", "LoRA with one initialisation: exact soups and averaged factors", compare={"averaged factors": "factors"})  # fmt: skip
    one([full], "front", "front-full", "Full fine-tuning", options=["--smooth"])
    for group, cell in (("lora", lora), ("other", other), ("full", full)):
        one([cell], "connectivity", f"connectivity-{group}", f"{TITLES[group]}: rewards along λ")
    one([replace(other, sets={**other.sets, "soups": other.sets["factors"]})], "connectivity", "connectivity-factors", "LoRA with two initialisations, factors averaged: rewards along λ")  # fmt: skip
    one([lora], "front", "front-bone", "Bone Soup, β = 0.7", compare={"Bone Soup": "bone-0.7", "MORL": "morl"})  # fmt: skip
    one([lora], "front", "front-tried", "MORL as a beginning and as a waypoint", compare={"MORL initialisation": "init", "MORL waypoint": "waypoint", "MORL": "morl"})  # fmt: skip
    along = [found[key][0] for key in steps_of(found)]
    if len(along) > 1:
        one(along, "training", "training", "Along training")
        said = captions.pop("training")
        captions.update({f"training-{part}": f"{said}: {part}" for part in ("fronts", "measures")})
    for group in curves:
        if len(found[group]) > 1:
            name = f"advantage-{group}"
            pictures.advantage_over_seeds(curves[group], folder / f"{name}.svg", over="MORL")
            captions[name] = f"{TITLES[group]}: soups less M trainings, over {len(found[group])} seeds"
        else:
            one([found[group][0]], "advantage", f"advantage-{group}", f"{TITLES[group]}: soups less M trainings", compare={"MORL": "morl"})  # fmt: skip
    return captions
