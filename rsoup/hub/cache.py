"""Files of a commit in the Hub's shared cache, downloaded where they are not; weights held against the Hub's SHA-256."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from rsoup.errors import RefusedFileError, show
from rsoup.hub.choice import local
from rsoup.hub.commit import Commit
from rsoup.hub.refusals import explained, not_kept

_PIECE: Final = 1 << 20
_AT_ONCE: Final = 4


def is_cached(commit: Commit, path: str) -> bool:
    """Whether the file lies in the shared cache, at its full size."""
    at = local(commit.folder, path)
    size = os.path.getsize(at) if os.path.isfile(at) else None
    return size is not None and (commit.files is None or size == commit.files[path].nbytes)


def bring(commit: Commit, paths: Sequence[str]) -> None:
    """Have these small files in the cache. Raises what `explained` raises."""
    missing = [path for path in paths if not is_cached(commit, path)]
    if commit.files is None and missing:
        raise not_kept(f"{commit.repo}@{commit.id[:12]}/{show(missing[0])}")
    if missing:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda path: _download(commit, path, quiet=True), missing))


def bring_weights(commit: Commit, paths: Sequence[str]) -> list[str]:
    """Have these weight files in the cache; notes on those that were there. Each that comes is hashed.

    Wrong bytes are fetched once more. Raises RefusedFileError E0717 where they are wrong again.
    """
    there = [path for path in paths if is_cached(commit, path)]
    if commit.files is None:
        bring(commit, paths)
        return [used_as_it_is(commit, there)]
    unproven = 0
    for path in paths:
        if path in there:
            continue
        wanted = commit.files[path].sha256
        at = _download(commit, path)
        if wanted is None:
            unproven += 1
        elif _sha256(at) != wanted:
            _forget(at)
            at = _download(commit, path, again=True)
            if _sha256(at) != wanted:
                _forget(at)
                raise wrong_bytes(commit, path)
    notes = [used_as_it_is(commit, there)] if there else []
    if unproven:
        notes.append(f"{show(commit.repo)}: the Hub has no SHA-256 of {unproven} small weight files; their sizes are right")  # fmt: skip
    return notes


def wrong_bytes(commit: Commit, path: str) -> RefusedFileError:
    """The error for a file whose bytes are not those the Hub has a digest of."""
    return RefusedFileError("E0717", "the bytes that arrived have another SHA-256 than the Hub says",
                            where=f"{commit.repo}@{commit.id[:12]}/{show(path)}",
                            hint="a broken proxy or storage? try again over another network")  # fmt: skip


def used_as_it_is(commit: Commit, there: Sequence[str]) -> str:
    """A note on weight files that nobody holds against a digest now."""
    files = "1 weight file was" if len(there) == 1 else f"{len(there)} weight files were"
    return f"{show(commit.repo)}: {files} in the Hub's cache and not hashed again; hf cache verify does that"


def _download(commit: Commit, path: str, *, quiet: bool = False, again: bool = False) -> str:
    from huggingface_hub import hf_hub_download

    with explained(f"{commit.repo}@{commit.id[:12]}", path):
        more: dict[str, Any] = {"tqdm_class": _silent()} if quiet else {}
        at = hf_hub_download(commit.repo, path, revision=commit.id, force_download=again, **more)
    if commit.files is not None and os.path.getsize(at) != commit.files[path].nbytes:
        _forget(at)
        raise wrong_bytes(commit, path)
    return str(at)


def _silent() -> Any:
    """A bar of the client that nobody sees."""
    from huggingface_hub import utils

    bar: Any = utils
    return type("Silent", (bar.tqdm,), {"__init__": _disabled})


def _disabled(self: Any, *args: Any, **kwargs: Any) -> None:
    super(type(self), self).__init__(*args, **{**kwargs, "disable": True})


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _forget(path: str) -> None:
    """Take a file out of the cache: the link and what it stands for."""
    for at in (os.path.realpath(path), path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(at)
