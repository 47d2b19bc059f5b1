"""Series of checkpoints: `run/checkpoint-*`, paired by training step."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from rsoup.errors import AccessError, IncompatibleError, Problem, UsageError, show, show_path
from rsoup.recipe import Ingredient
from rsoup.request import Request

Series = Mapping[int, str]
"""Step → path."""


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern of a series: a `*` in it, and nothing of that very name."""
    return "*" in path and not os.path.lexists(path)


def expand(pattern: str) -> dict[int, str]:
    """Step → path of what a pattern matches; its one `*` stands for the step, in the last part of the path.

    Raises UsageError E0251 for another pattern, AccessError E0701 where nothing matches.
    """
    folder, name = os.path.split(pattern.rstrip("/"))
    if name.count("*") != 1 or "*" in folder:
        raise UsageError(
            "E0251",
            f"'{show(pattern)}' is no series of checkpoints",
            hint="one * in the last part of the path, for the training step: 'run/checkpoint-*'",
        )
    before, after = name.split("*")
    matching = re.compile(re.escape(before) + "([0-9]{1,18})" + re.escape(after))
    try:
        names = os.listdir(folder or ".")
    except OSError:
        names = []
    found: dict[int, str] = {}
    for entry in sorted(names):
        if match := matching.fullmatch(entry):
            step = int(match[1])
            if step in found:
                raise UsageError(
                    "E0251",
                    f"two checkpoints of step {step}: '{show(os.path.basename(found[step]))}' and '{show(entry)}'",
                    hint="move one of them away",
                )
            found[step] = os.path.join(folder, entry)
    if not found:
        raise AccessError(
            "E0701",
            "no checkpoint of this series is there",
            where=show_path(pattern),
            hint="the * stands for a whole number: checkpoint-500",
        )
    return dict(sorted(found.items()))


def steps_of(paths: Mapping[str, Series]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(the steps that all series have, in order; a note on those that only some have).

    Raises IncompatibleError E0314 where they have none in common.
    """
    every = set.union(*(set(series) for series in paths.values()))
    shared = set.intersection(*(set(series) for series in paths.values()))
    if not shared:
        raise IncompatibleError(
            "E0314",
            "the series have no training step in common",
            details=tuple(
                Problem(f"'{show(name)}'", ", ".join(map(str, list(series)[:10])))
                for name, series in paths.items()
            ),
            hint="a front needs a checkpoint of every ingredient at the same step",
        )
    alone = sorted(every - shared)
    notes = (
        [f"steps that only some series have are left out: {', '.join(map(str, alone[:10]))}"] if alone else []
    )
    return tuple(sorted(shared)), tuple(notes)


def request_at(request: Request, paths: Mapping[str, Series], step: int) -> Request:
    """The request with the checkpoints of one step; an ingredient that is no series has the same at every step."""
    ingredients = [
        Ingredient(i.name, (paths[i.name][step],)) if i.name in paths else i for i in request.ingredients
    ]
    return replace(request, ingredients=ingredients)
