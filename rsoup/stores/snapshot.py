"""Adapters of object stores that were copied here: small, looked at before they are opened, kept while the process runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_copies: Final[dict[str, tuple[str, tuple[object, ...]]]] = {}


def copy_of(uri: str) -> str:
    """Where the last copy of this address lies; any other text as it is. Asks nobody."""
    found = _copies.get(uri.rstrip("/"))
    return uri if found is None else found[0]


def kept_copy(uri: str, objects: Sequence[object]) -> str | None:
    """Where the copy of these very objects lies; None where there is none."""
    path, kept = _copies.get(uri.rstrip("/"), (None, ()))
    return path if kept == tuple(objects) else None


def keep_copy(uri: str, path: str, objects: Sequence[object]) -> None:
    """From now on `path` is the copy of the adapter at `uri`, made of these objects."""
    _copies[uri.rstrip("/")] = path, tuple(objects)
