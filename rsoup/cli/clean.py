"""`rsoup clean`: what interrupted merges left behind."""

from __future__ import annotations

import os

from rsoup.console import Console
from rsoup.errors import AccessError, show
from rsoup.storage.files import open_error
from rsoup.storage.parts import is_held, leftovers, remove_unheld
from rsoup.storage.target import target_error


def run(folder: str, *, yes: bool, console: Console) -> None:
    """List the staging folders in `folder` that no running merge holds; remove them with `yes`."""
    try:
        paths = [os.path.join(folder, name) for name in leftovers(folder)]
    except OSError as error:
        raise open_error(error, show(folder)) from error
    if not os.path.isdir(folder):
        raise AccessError("E0701", "no such folder", where=show(folder), hint="check the spelling")
    found = [path for path in paths if not is_held(path)]
    if yes:
        found = [path for path in found if _remove(path)]
    verb = "removed" if yes else "left by an interrupted merge"
    lines = [f"{show(path)}: {verb}" for path in found] or ["nothing was left behind"]
    if found and not yes:
        lines.append("type the merge again to go on with it, or remove: rsoup clean --yes")
    console.result("\n".join(lines), {"found": found, "removed": yes}, "\n".join(found))


def _remove(path: str) -> bool:
    try:
        return remove_unheld(path)
    except OSError as error:
        raise target_error(error, show(path)) from error
