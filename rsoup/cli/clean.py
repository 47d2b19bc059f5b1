"""`rsoup clean`: what interrupted merges left behind."""

from __future__ import annotations

import os
import shutil

from rsoup.console import Console
from rsoup.errors import AccessError, show
from rsoup.storage.staging import is_held, leftovers


def run(folder: str, *, yes: bool, console: Console) -> None:
    """List the staging folders in `folder` that no running merge holds; remove them with `yes`."""
    if not os.path.isdir(folder):
        raise AccessError("E0701", "no such folder", where=show(folder))
    found = [path for path in leftovers(folder) if not is_held(path)]
    if yes:
        for path in found:
            shutil.rmtree(path)
    verb = "removed" if yes else "left by an interrupted merge"
    lines = [f"{show(path)}: {verb}" for path in found] or ["nothing was left behind"]
    if found and not yes:
        lines.append("type the merge again to go on with it, or: rsoup clean --yes")
    console.result("\n".join(lines), {"found": found, "removed": yes}, "\n".join(found))
