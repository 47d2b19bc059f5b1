"""An address → a place on this machine that opens like any checkpoint, with what a careful reader should know."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from rsoup.errors import RsoupError, show
from rsoup.hub.address import Address, address_of, halves
from rsoup.hub.cache import bring, bring_weights, is_cached
from rsoup.hub.choice import (
    adapter_files,
    beside,
    folder_and_file,
    is_small_kind,
    local,
    names_in,
    weights_of,
)
from rsoup.hub.commit import Commit, commit_of, pinned, renamed
from rsoup.hub.mount import Mount
from rsoup.hub.refusals import not_kept
from rsoup.storage.folder import list_folder

Fetch = Literal["cache", "headers"]
FETCHES: Final = ("cache", "headers")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or weight file here that holds what the address names; `close` removes what was made for it alone."""

    path: str
    shown: str
    notes: tuple[str, ...]
    close: Callable[[], None]


def place(address: Address, *, variant: str | None = None, fetch: Fetch = "cache") -> Place:
    """The checkpoint at `address`, by its commit: "cache" has its weights in the shared cache, hashed as they come.

    "headers" downloads what lies beside the weights and their headers; other bytes are read from the Hub when asked
    for, and are not held against a digest. Raises what `commit_of`, `weights_of` and `bring_weights` raise.
    """
    at = pinned(address)
    assert at.revision is not None
    commit = commit_of(at.repo, at.revision)
    notes = renamed(at.repo)
    shown = Address(at.repo, at.revision[:12], at.path).shown
    if commit.files is None:
        return _kept(commit, at.path, variant, shown)
    folder, file = folder_and_file(commit, at.path, shown)
    names = names_in(commit.files, folder)
    prefix = f"{folder}/" if folder else ""
    here = local(commit.folder, folder) if folder else commit.folder
    small = beside(names)
    if file is not None:
        small = [name for name in small if name.startswith("adapter_config")]
        weights = [file]
        names = [file, *small]
        bring(commit, [prefix + name for name in small])
    else:
        weights = weights_of(
            here, names, variant, shown, lambda wanted: bring(commit, [prefix + name for name in wanted])
        )
    paths = [prefix + name for name in weights]
    if fetch == "cache" or all(is_cached(commit, path) for path in paths):
        bring(commit, [prefix + name for name in small])
        notes += bring_weights(commit, paths)
        return Place(os.path.join(here, file) if file else here, shown, tuple(notes), _nothing)
    mount = Mount(commit, folder, [*dict.fromkeys([*small, *weights])], weights)
    notes.append(f"{show(at.repo)}: only headers are read; its weights stay on the Hub")
    return Place(os.path.join(mount.folder, file) if file else mount.folder, shown, tuple(notes), mount.close)


def _kept(commit: Commit, path: str, variant: str | None, shown: str) -> Place:
    """What the cache holds of the address, where the Hub cannot be asked; E0716 or E7510 where that is not all of it."""
    here = local(commit.folder, path) if path else commit.folder
    notes: tuple[str, ...] = ()
    if not os.path.isfile(here):
        try:
            weights = weights_of(here, list_folder(here, shown), variant, shown, lambda _: None)
        except RsoupError:
            raise not_kept(shown) from None
        prefix = f"{path}/" if path else ""
        notes = tuple(bring_weights(commit, [prefix + name for name in weights]))
    return Place(here, shown, notes, _nothing)


def _nothing() -> None:
    return None


def at_hand(uri: str) -> str:
    """A pinned address, its small files here: what `dialects` and everything else may look at without a network."""
    if (both := halves(uri)) is not None:
        return "+".join(map(at_hand, both))
    address = address_of(uri)
    if address is None:
        return uri
    at = pinned(address)
    assert at.revision is not None
    commit = commit_of(at.repo, at.revision)
    if commit.files is not None:
        folder, file = folder_and_file(commit, at.path, at.shown)
        names, prefix = names_in(commit.files, folder), f"{folder}/" if folder else ""
        wanted = [name for name in beside(names) if file is None or name.startswith("adapter_config")]
        bring(commit, [prefix + name for name in wanted])
        if file is None and is_small_kind(names):
            bring_weights(commit, [prefix + name for name in adapter_files(names)])
    return at.uri
