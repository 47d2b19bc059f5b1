"""Small files, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import Final

from rsoup.errors import show_path
from rsoup.storage.rename import sync_folder
from rsoup.storage.target import target_error

_BEGIN: Final = ".rsoup-"
_END: Final = ".part"


def is_staged(name: str) -> bool:
    """Whether this is the name of a file that is being written, or that a killed run left."""
    return name.startswith(_BEGIN) and name.endswith(_END)


def write_whole(path: str, data: bytes) -> None:
    """Replace a file (what a link leads to) by `data` in one step, durably.

    Raises TargetError E060x or AccessError E0704 where the place cannot be written or holds something else than a
    file.
    """
    try:
        replace(path, data)
    except (OSError, ValueError) as error:
        raise target_error(error, show_path(path)) from error


def replace(path: str, data: bytes) -> None:
    """`write_whole` with the system's own errors: OSError, ValueError."""
    path = os.path.realpath(path)
    if os.path.lexists(path) and not os.path.isfile(path):
        raise OSError(0, "it exists and is not a regular file")
    folder = os.path.dirname(path)
    staged = os.path.join(folder, f"{_BEGIN}{secrets.token_hex(8)}{_END}")
    try:
        with open(staged, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(staged)
        raise
    sync_folder(folder)
