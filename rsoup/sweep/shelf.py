"""The shelf: soups on the disk, made in batches from one reading, thrown away when their room is needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Final

from rsoup.errors import TargetError, show_path
from rsoup.merging import merge_many
from rsoup.progress import OnProgress
from rsoup.storage.target import free_bytes, size_text
from rsoup.storage.whole import write_whole
from rsoup.sweep import folder as folders
from rsoup.sweep.inputs import Inputs
from rsoup.sweep.point import Point
from rsoup.sweep.study import Study, soup_key

BATCH: Final = 16
"""Most soups of one reading: more would keep evaluators waiting and files open for little."""
_SHARE_OF_FREE = 0.8


class Shelf:
    """The soups of a study; `room` of them fit at a time."""

    def __init__(self, study: Study, inputs: Inputs, soup_nbytes: int, budget: int | None) -> None:
        """`budget` are the bytes all soups together may take, None for most of what is free.

        Raises TargetError E0602 where not even one fits.
        """
        self._study, self._inputs = study, inputs
        self.soup_nbytes = soup_nbytes
        place = os.path.join(study.folder, folders.SOUPS)
        free = free_bytes(place)
        kept = sum(1 for _ in self._there())
        limit = budget if budget is not None else None if free is None else int(free * _SHARE_OF_FREE)
        self.room = None if limit is None else limit // max(1, soup_nbytes)
        if budget is None and self.room is not None:
            self.room += kept
        if self.room == 0:
            what = "the budget" if budget is not None else "the free space"
            raise TargetError(
                "E0602",
                f"one soup needs {size_text(soup_nbytes)}, and {what} is {size_text(limit or 0)}",
                where=show_path(place),
                hint="free some space, or a larger --scratch-budget",
            )

    def _there(self) -> Iterable[str]:
        with contextlib.suppress(OSError):
            for entry in os.scandir(os.path.join(self._study.folder, folders.SOUPS)):
                if not entry.name.startswith(".") and not entry.name.endswith((".rsoup.json", ".part")):
                    yield entry.path

    def has(self, point: Point) -> bool:
        """Whether the point's soup is there, complete, and what its recipe gives of the checkpoints as they are."""
        soup = self._study.soup(point)
        if not os.path.isfile(folders.manifest_of(soup)):
            return False
        try:
            with open(_key_file(soup), encoding="ascii") as file:
                return file.read() == self._key(point)
        except (OSError, ValueError):
            return False

    def _key(self, point: Point) -> str:
        text = json.dumps(soup_key(self._study.recipe(point), self._inputs), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def digest(self, point: Point) -> str | None:
        """The content digest of the point's soup, as its manifest says."""
        try:
            with open(folders.manifest_of(self._study.soup(point)), "rb") as file:
                return str(json.load(file)["content"])
        except (OSError, ValueError, KeyError):
            return None

    def next_batch(self, waiting: Sequence[Point], settled: Sequence[Point]) -> list[Point]:
        """The points whose soups are made next; soups of `settled` points make room for them, if they must.

        All of one training step. With too little room for all, half of it is filled at a time, so that one batch is
        made while another is evaluated.
        """
        missing = [point for point in waiting if not self.has(point)]
        missing = [point for point in missing if point.step == missing[0].step]
        count = min(len(missing), BATCH)
        if self.room is None or not missing:
            return missing[:count]
        if len(missing) > self.room:
            count = min(count, max(1, self.room // 2))
        here = len(list(self._there()))
        for point in settled:
            if here + count <= self.room:
                break
            if self.has(point):
                folders.remove_soup(self._study.soup(point))
                here -= 1
        return missing[: max(0, min(count, self.room - here))]

    def make(self, points: Sequence[Point], *, threads: int | None, progress: OnProgress | None) -> None:
        """Write the soups of points of one training step, from one reading. Raises what a merge raises."""
        os.makedirs(os.path.join(self._study.folder, folders.SOUPS), exist_ok=True)
        recipes = [(self._study.recipe(point), self._study.soup(point)) for point in points]
        for _, soup in recipes:
            folders.remove_soup(soup)  # of other checkpoints, or of a run that was killed
        results = merge_many(recipes, threads=threads, progress=progress, fetch="cache")
        for point, (recipe, _), result in zip(points, recipes, results, strict=True):
            if result.distances is not None:
                names = [name for name, _ in recipe.checkpoints()]
                folders.keep_distances(self._study.folder, point.step, names, result.distances.relative)
        for point, (_, soup) in zip(points, recipes, strict=True):
            write_whole(_key_file(soup), self._key(point).encode())

    def keep_only(self, points: Iterable[Point], all_points: Iterable[Point]) -> None:
        """Delete the soups of all points but these."""
        kept = {self._study.soup(point) for point in points}
        for point in all_points:
            if (soup := self._study.soup(point)) not in kept:
                folders.remove_soup(soup)


def _key_file(soup: str) -> str:
    """What a soup was made of, beside it: it is written when the soup is complete."""
    return os.path.join(os.path.dirname(soup), f".{os.path.basename(soup)}.key")
