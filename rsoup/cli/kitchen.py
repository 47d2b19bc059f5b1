"""From a λ that was chosen to the command that makes its soup, or to the soup, where the table is a sweep's."""

from __future__ import annotations

import os
import shlex
from fractions import Fraction

from rsoup.analysis.data import Data
from rsoup.analysis.selected import Candidate, mix_text
from rsoup.console import Console, ProgressBar
from rsoup.errors import UsageError, show_path
from rsoup.measured.table import FILE
from rsoup.recipe import Recipe
from rsoup.sweep.point import Point


class Kitchen:
    """What is known of the checkpoints behind a table: all of it in a sweep's folder, nothing elsewhere."""

    def __init__(self, path: str, data: Data) -> None:
        from rsoup.sweep.folder import SPEC, is_sweep
        from rsoup.sweep.study import Study
        from rsoup.sweep.sweep_yaml import load

        folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
        whole = os.path.isdir(path) or os.path.basename(path) == FILE
        self._data, self._shown = data, show_path(path)
        self._study = Study(load(os.path.join(folder, SPEC)), folder) if whole and is_sweep(folder) else None

    @property
    def knows(self) -> bool:
        """Whether the checkpoints are known, so that any soup of them can be made."""
        return self._study is not None

    def command(self, chosen: Candidate) -> str | None:
        """The line that makes the soup; None where it is not a soup's λ that is known."""
        row = None if chosen.point is None else self._data.rows[chosen.point]
        if row is not None and row.command is not None:
            return row.command
        mix = chosen.mix
        if mix is None:
            return None
        if self._study is not None and len(mix) == len(self._study.names):
            line = self._study.merge_command(self._point(chosen, mix))
            return None if "recipes" in line and not os.path.exists(shlex.split(line)[2]) else line
        names = self._data.ingredients
        unfit = any(name.isdigit() or name.startswith("-") or "=" in name for name in names)
        if not names or unfit or (row is not None and row.scale != 1):
            return None
        return shlex.join(
            ["rsoup", "merge", *self._data.ingredients, "--lambda", mix_text(mix), "-o", "soup"]
        )

    def _point(self, chosen: Candidate, mix: tuple[Fraction, ...]) -> Point:
        row = None if chosen.point is None else self._data.rows[chosen.point]
        scale = Fraction(1) if row is None else row.scale
        return Point(mix, scale, self._data.rows[0].step)

    def name(self, point: int) -> str:
        """What a measured point is called."""
        return self._data.rows[point].name

    def recipe(self, chosen: Candidate) -> Recipe:
        """What the soup is made of. Raises UsageError E0266 for a table without checkpoints."""
        if self._study is None or chosen.mix is None:
            raise UsageError(
                "E0266", "--merge needs the folder of a sweep, which knows its checkpoints", where=self._shown,
                hint="rsoup merge makes the soup of any λ",
            )  # fmt: skip
        return self._study.recipe(self._point(chosen, chosen.mix))

    def make(
        self, chosen: Candidate, out: str, *, overwrite: bool, threads: int | None, console: Console
    ) -> str:
        """Write the soup; where it is. Raises UsageError E0266 for a table without checkpoints, and what a merge raises."""
        from rsoup.merging import merge

        recipe = self.recipe(chosen)
        with ProgressBar(console) as bar:
            result = merge(recipe, out, overwrite=overwrite, threads=threads, progress=bar, fetch="cache")
        for note in result.notes:
            console.note(note)
        return result.out
