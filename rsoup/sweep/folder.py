"""A sweep's folder: where what lies, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rsoup.errors import TargetError, show_path
from rsoup.storage.target import is_single_file, sidecar, target_error
from rsoup.storage.whole import is_staged, write_whole

SPEC: Final = "sweep.yaml"
STATE: Final = "sweep.json"
METRICS: Final = "metrics.json"
POINTS: Final = "points.csv"
PAGE: Final = "report.html"
SOUPS: Final = "soups"
LOGS: Final = "logs"
OUTPUTS: Final = "outputs"
INPUTS: Final = "inputs.json"
DISTANCES: Final = "distances.json"
_BEFORE_STATE = frozenset((INPUTS, SPEC, "claims"))  # what a run that was killed early leaves


def is_sweep(path: str) -> bool:
    """Whether a path is a sweep's folder."""
    return os.path.isfile(os.path.join(path, STATE)) and os.path.isfile(os.path.join(path, SPEC))


@contextlib.contextmanager
def made(folder: str) -> Iterator[None]:
    """The folder is there; if it was not before and the block fails, it is gone again.

    Raises TargetError E0601 for one that holds something else.
    """
    before = os.path.lexists(folder)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise target_error(error, show_path(folder)) from error
    check(folder)
    try:
        yield
    except BaseException:
        if not before:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise


def check(folder: str) -> None:
    """TargetError E0601 for a place that holds something else than a sweep."""
    shown = show_path(folder)
    try:
        others = {name for name in os.listdir(folder) if not is_staged(name)} - _BEFORE_STATE
    except FileNotFoundError:
        return
    except OSError as error:
        raise target_error(error, shown) from error
    if others and not os.path.isfile(os.path.join(folder, STATE)):
        raise TargetError(
            "E0601",
            "the output exists and is no sweep",
            where=shown,
            hint="choose another -o: a sweep has a folder of its own",
        )


def manifest_of(soup: str) -> str:
    """Where the manifest of a soup lies, which is there if and only if the soup is complete."""
    return sidecar(soup) if is_single_file(soup) else os.path.join(soup, "rsoup.json")


def remove_soup(soup: str) -> None:
    """Delete a soup, if it is there; nobody sees half of it."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(os.path.dirname(soup), f".{os.path.basename(soup)}.key"))
    if is_single_file(soup):
        for path in (sidecar(soup), soup):
            with contextlib.suppress(OSError):
                os.unlink(path)
        return
    gone = os.path.join(os.path.dirname(soup), f".gone-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        os.rename(soup, gone)
        shutil.rmtree(gone, ignore_errors=True)


def distances(folder: str) -> list[dict[str, Any]]:
    """How far the checkpoints moved from the base, ‖θ − base‖/‖base‖, by training step; what merges measured so far."""
    try:
        with open(os.path.join(folder, DISTANCES), "rb") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return []  # it is made anew with the next soup
    return found if isinstance(found, list) else []


def keep_distances(
    folder: str, step: int | None, names: Sequence[str], relative: Sequence[float | None]
) -> None:
    """Add what a merge measured of a training step; ingredients that it did not read are kept as they were."""
    new = {n: v for n, v in zip(names, relative, strict=True) if v is not None and math.isfinite(v)}
    before = distances(folder)
    old: dict[str, float] = next((e["relative"] for e in before if e["step"] == step), {})
    if new.items() <= old.items():
        return
    others = [entry for entry in before if entry["step"] != step]
    both = [*others, {"step": step, "relative": {**old, **new}}]
    both.sort(key=lambda entry: (entry["step"] is not None, entry["step"]))
    write_whole(os.path.join(folder, DISTANCES), (json.dumps(both, indent=2) + "\n").encode())
