"""Where a soup lies that is named by a path or by an address of the Hub, and its files here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rsoup import manifest
from rsoup.errors import UsageError, show_path
from rsoup.hub.address import Address, address_of
from rsoup.hub.cache import bring, bring_weights
from rsoup.hub.choice import local
from rsoup.hub.commit import Commit, commit_of, pinned
from rsoup.proof import claims
from rsoup.proof.claims import Claims, lone_file
from rsoup.storage.files import open_error
from rsoup.storage.folder import CARD
from rsoup.storage.target import sidecar
from rsoup.stores.address import is_store
from rsoup.stores.place import lies_there

FETCHED = frozenset((".git", ".gitattributes", ".gitignore", ".cache"))
"""What a download leaves beside a model."""


@dataclass(frozen=True, slots=True)
class Located:
    """A soup: where it is here (`path`), what to call it, and of one on the Hub its commit and its path in it."""

    path: str
    shown: str
    commit: Commit | None = field(default=None, repr=False)
    at: str = ""

    @property
    def uri(self) -> str:
        """What opens its checkpoint: the path, or the address by its commit."""
        if self.commit is None:
            return self.path
        return Address(self.commit.repo, self.commit.id, self.at).uri

    @property
    def typed(self) -> str:
        """What a user types to mean it and no later commit."""
        return self.shown if self.commit is None else self.uri

    def read(self) -> Claims:
        """Its manifest. Raises what `claims.read` raises."""
        return claims.read(self.path, self.shown)


def located(uri: str) -> Located:
    """The soup at a path or an address, of which only the manifest and the card are brought here.

    Raises UsageError E0733 for one in an object store, AccessError E0702 for a folder that may not be read, and what
    `commit_of` raises for addresses; whether there is a manifest shows when it is read.
    """
    address = address_of(uri)
    if address is None and is_store(uri) and not os.path.lexists(uri):
        raise UsageError("E0733", "a soup's own recipe and digests are read in a folder or on the Hub, not in an object store", where=show_path(uri),
                         hint="copy its folder here; as an ingredient of another soup: NAME=ADDRESS")  # fmt: skip
    if address is None:
        try:
            alone = lone_file(os.listdir(uri)) if os.path.isdir(uri) else None
        except OSError as error:
            raise open_error(error, show_path(uri)) from error
        return Located(uri if alone is None else os.path.join(uri, alone), show_path(uri))
    at = pinned(address)
    assert at.revision is not None
    commit = commit_of(at.repo, at.revision)
    files = commit.files or {}
    prefix = _in(at.path, "")
    alone = lone_file(name.removeprefix(prefix) for name in files if name.startswith(prefix))
    path = at.path if alone is None else _in(at.path, alone)
    wanted = [sidecar(path)] if path in files else [_in(path, manifest.NAME), _in(path, CARD)]
    bring(commit, [name for name in wanted if name in files])
    shown = Address(at.repo, at.revision[:12], path).shown
    return Located(local(commit.folder, path) if path else commit.folder, shown, commit, path)


def holds_soup(uri: str) -> Located | None:
    """The soup at a path or an address, where that has a manifest and is no single file here; None for anything else.

    Raises what `located` raises.
    """
    if is_store(uri) and not os.path.lexists(uri):
        return located(uri) if lies_there(uri, manifest.NAME) else None
    if address_of(uri) is None and not os.path.isdir(uri):
        return None
    found = located(uri)
    return found if os.path.lexists(claims.manifest_path(found.path)) else None


def brought(found: Located, said: Claims, *, weights: bool = True) -> dict[str, int]:
    """Have the files that the manifest lists in the cache, or those beside the weights; name → bytes of the commit's others.

    Others are what the manifest does not list, as a download has it, and weights that stay on the Hub. Nothing for a
    soup that lies here. Raises what `bring` and `bring_weights` raise.
    """
    commit = found.commit
    if commit is None or commit.files is None:
        return {}
    files = commit.files
    folder = os.path.dirname(found.at) if found.at in files else found.at
    listed = {_in(folder, subject.name): subject.digest is not None for subject in said.subjects}
    there = [name for name, is_weights in listed.items() if name in files and (weights or not is_weights)]
    bring(commit, [name for name in there if files[name].sha256 is None])
    bring_weights(commit, [name for name in there if files[name].sha256 is not None])
    prefix = _in(folder, "")
    known = {*there, _in(folder, manifest.NAME)}
    others = {
        n.removeprefix(prefix): f.nbytes for n, f in files.items() if n.startswith(prefix) and n not in known
    }
    return {name: size for name, size in others.items() if name.partition("/")[0] not in FETCHED}


def _in(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
