"""A commit of a model on the Hub: its id, and its files with sizes and digests. Asked once in a process; it never changes."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final

from rsoup.errors import AccessError, BusyError, RefusedFileError, listing, show
from rsoup.hub.address import SCHEME, Address, is_inside, parse
from rsoup.hub.patience import patient
from rsoup.hub.refusals import endpoint, explained, not_kept

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_MAX_FILES: Final = 100_000
_TIMEOUT: Final = 30.0


_names: dict[str, str] = {}  # what the Hub calls the models that were asked for
_silent: set[str] = (
    set()
)  # models that the Hub was asked for in vain: its client would wait half a minute each time


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a commit: bytes, and the SHA-256 the Hub has of a large one (None for one that git holds)."""

    nbytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Commit:
    """A model at one commit: `files` by their path; None where the Hub could not be asked and the cache must do."""

    repo: str
    id: str
    files: Mapping[str, RemoteFile] | None = field(repr=False)

    @property
    def folder(self) -> str:
        """Where the shared cache keeps this commit's files."""
        from huggingface_hub import constants

        name = f"models--{self.repo.replace('/', '--')}"
        return os.path.join(os.path.realpath(constants.HF_HUB_CACHE), name, "snapshots", self.id)


def snapshot_path(uri: str) -> str:
    """Where the shared cache keeps what a pinned `hf://` address names; any other text as it is. Asks nobody."""
    address = parse(uri) if uri.startswith(SCHEME) else None
    if address is None or not address.is_pinned:
        return uri
    assert address.revision is not None
    return os.path.join(Commit(address.repo, address.revision, None).folder, *address.path.split("/"))


def pinned(address: Address) -> Address:
    """The address by its commit, resolved by the Hub once; where it cannot be reached, as the cache last had it.

    Raises AccessError E0701, E0711 to E0716, BusyError E7510.
    """
    if address.is_pinned:
        return address
    commit = _resolved(address.repo, address.revision)
    if not _COMMIT.fullmatch(commit):
        raise RefusedFileError("E0718", "the Hub names no commit but something else", where=address.shown)
    return address.at(commit)


@lru_cache(maxsize=256)
def _resolved(repo: str, revision: str | None) -> str:
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        found = patient(lambda: HfApi().model_info(repo, revision=revision, timeout=_TIMEOUT), repo)
    except (OfflineModeIsEnabled, TransportError):
        with explained(repo):
            kept = HfApi().resolve_revision(repo, revision=revision, local_files_only=True)
        _silent.add(repo)
        return str(kept.resolved)
    if revision != found.sha:
        _remember(Commit(repo, str(found.sha), None).folder, revision or "main")
    _names[repo] = str(found.id)
    return str(found.sha)


def renamed(repo: str) -> list[str]:
    """A note on a model that has another name now, if the Hub said so."""
    now = _names.get(repo, repo)
    if now.lower() == repo.lower():
        return []
    return [f"{show(repo)} was renamed: it is {show(now)} now"]


def _remember(folder: str, revision: str) -> None:
    """Keep which commit a branch was, as the Hub's client does, so that it can be used without a network."""
    snapshots, commit = os.path.split(folder)
    at = os.path.join(os.path.dirname(snapshots), "refs", *revision.split("/"))
    with contextlib.suppress(OSError):  # a cache that is only read
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(at), prefix=".", delete=False) as file:
            file.write(commit)
        os.replace(file.name, at)


@lru_cache(maxsize=256)
def commit_of(repo: str, commit: str) -> Commit:
    """The files of a commit. Raises as `pinned`; RefusedFileError E0718 for names that could lead out of a folder."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    files: dict[str, RemoteFile] = {}
    kept = Commit(repo, commit, None)
    if repo not in _names and repo not in _silent:
        _resolved(repo, commit)
    if repo in _silent:
        if os.path.isdir(kept.folder):
            return kept
        _silent.discard(repo)  # asked again when it is wanted again
        raise not_kept(f"{repo}@{commit[:12]}")
    try:
        with explained(f"{repo}@{commit[:12]}"):
            tree = patient(
                lambda: [
                    *islice(HfApi().list_repo_tree(repo, recursive=True, revision=commit), _MAX_FILES + 1)
                ],
                repo,
            )
    except (AccessError, BusyError) as error:
        if error.code in ("E0716", "E7510") and os.path.isdir(kept.folder):
            return kept
        raise
    if len(tree) > _MAX_FILES:
        raise RefusedFileError("E0718", f"more than {_MAX_FILES} files", where=repo)
    for entry in tree:
        if isinstance(entry, RepoFile):
            files[entry.path] = RemoteFile(entry.size, None if entry.lfs is None else entry.lfs.sha256)
    if hostile := [path for path in files if not is_inside(path)]:
        raise RefusedFileError(
            "E0718", f"the Hub lists names that no folder here should hold: {listing(hostile, 3)}", where=repo,
            hint="hf download --include takes the files you need into a folder",
        )  # fmt: skip
    for path, file in files.items():
        if not 0 <= file.nbytes < 1 << 60 or not (file.sha256 is None or _SHA256.fullmatch(file.sha256)):
            raise RefusedFileError("E0718", f"what the Hub says of '{show(path)}' cannot be", where=repo)
    return Commit(repo, commit, files)


def url_of(repo: str, commit: str, path: str) -> str:
    """Where a file of a commit is asked for."""
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, path, revision=commit, endpoint=endpoint())
