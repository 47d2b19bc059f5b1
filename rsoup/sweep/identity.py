"""What decides an evaluator's scores, as JSON: if it changes, old results are of something else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import Final

from rsoup.errors import show
from rsoup.sweep.processes import cannot_run
from rsoup.sweep.score import Metric

LARGE_BYTES: Final = 1 << 30  # a larger file is known by its size and time of change


def metrics_identity(metrics: Sequence[Metric]) -> list[dict[str, object]]:
    """Names and addresses of metrics, in order; whether they are optimised decides no score."""
    return [
        {"name": metric.name, "address": metric.address, "error_address": metric.error_address}
        for metric in metrics
    ]


def file_identity(path: str) -> str:
    """`sha256:…`, or `size:…,mtime_ns:…` for more than 1 GiB. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_size > LARGE_BYTES:
            return f"size:{found.st_size},mtime_ns:{found.st_mtime_ns}"
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def named_files(tokens: Iterable[str], folder: str) -> dict[str, str]:
    """Token → identity, for each that is the path of a regular file, seen from `folder`.

    Raises UsageError E0237 for one that cannot be read.
    """
    found = {}
    for token in tokens:
        path = os.path.join(folder, token)
        if token and "\0" not in token and os.path.isfile(path):
            found[token] = _readable(path, token)
    return found


def given_files(paths: Iterable[str], folder: str) -> dict[str, str]:
    """Path → identity of the files that were named on purpose: each must be there.

    Raises UsageError E0237 for one that is not, or is a folder.
    """
    found = {}
    for path in paths:
        if not os.path.isfile(os.path.join(folder, path)):
            raise cannot_run(
                f"the file '{show(path)}' it depends on is not there", hint="name regular files, one by one"
            )
        found[path] = _readable(os.path.join(folder, path), path)
    return found


def _readable(path: str, shown: str) -> str:
    try:
        return file_identity(path)
    except OSError as error:
        raise cannot_run(
            f"'{show(shown)}' cannot be read: {error.strerror}", hint=f"chmod +r {show(shown)}"
        ) from None


def listing_of(path: str) -> dict[str, tuple[int, ...]]:
    """Relative path → (inode, mode, size, time of change) of a folder's entries, or of the file itself: cheap."""
    found = {"": _stat(path)}
    for place, folders, names in os.walk(path):
        for name in (*folders, *names):
            entry = os.path.join(place, name)
            found[os.path.relpath(entry, path)] = _stat(entry)
    return found


def _stat(path: str) -> tuple[int, ...]:
    try:
        found = os.lstat(path)
    except OSError:
        return ()
    folder = os.path.isdir(path)
    return (found.st_ino, found.st_mode, 0 if folder else found.st_size, 0 if folder else found.st_mtime_ns)


def change(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> str | None:
    """What differs between two listings, in words; None if nothing does."""
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            shown = f"'{show(name)}'" if name else "it"
            word = "is new" if name not in before else "is gone" if not after.get(name) else "was changed"
            return f"{shown} {word}"
    return None
