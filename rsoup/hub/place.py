"""An address → a place on this machine that opens like any checkpoint, with what a careful reader should know."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from rsoup.dialects import ADAPTER_CONFIG, DIFFUSERS, dialect_of, is_adapter_place, names_of_head
from rsoup.errors import RsoupError, show
from rsoup.hub.address import Address, address_of, halves
from rsoup.hub.cache import bring, bring_weights, is_cached, used_as_it_is
from rsoup.hub.choice import (
    adapter_files,
    beside,
    folder_and_file,
    local,
    may_be_adapter,
    names_in,
    weights_of,
)
from rsoup.hub.commit import Commit, commit_of, pinned, renamed
from rsoup.hub.mount import Mount, RemoteBytes, head_of
from rsoup.hub.refusals import not_kept
from rsoup.remote.transfer import Fetch, Transfer, passed
from rsoup.storage.folder import list_folder


@dataclass(frozen=True, slots=True)
class Place:
    """A folder or weight file here that holds what the address names; `close` removes what was made for it alone.

    `transfer` says how its weights come, and once they were read what was proven of them.
    """

    path: str
    shown: str
    notes: tuple[str, ...]
    close: Callable[[], None]
    transfer: Callable[[], Transfer | None]


def place(address: Address, *, variant: str | None = None, fetch: Fetch = "cache") -> Place:
    """The checkpoint at `address`, by its commit: "cache" has its weights in the shared cache, hashed as they come.

    "stream" has them nowhere: they come as they are read, and are proven at the end; adapters and what is no
    safetensors file go through the cache all the same. "parts" is a stream that need not prove whole files. "headers" reads headers alone (so do "cache?" and "stream?",
    whose `transfer` is what the other would do). What is in the cache is used. Raises what `commit_of`, `weights_of`
    and `bring_weights` raise.
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
    planned = _transfer(
        commit, shown, paths, fetch, is_adapter=file is None and _is_adapter(commit, prefix, names)
    )
    stream = fetch in ("stream", "parts") and planned.way == "stream"
    if planned.way == "here" or (fetch in ("cache", "stream", "parts") and not stream):
        bring(commit, [prefix + name for name in small])
        notes += bring_weights(commit, paths)
        return Place(
            os.path.join(here, file) if file else here, shown, tuple(notes), _nothing, lambda: planned
        )
    if not stream:
        notes.append(f"{show(at.repo)}: only headers are read; its weights stay on the Hub")
    elif kept := [path for path in paths if is_cached(commit, path)]:
        notes.append(used_as_it_is(commit, kept))
    mount = Mount(
        commit,
        folder,
        [*dict.fromkeys([*small, *weights])],
        weights,
        stream=stream,
        in_parts=fetch == "parts",
    )
    mine = {path for path in paths if not is_cached(commit, path)}
    return Place(
        os.path.join(mount.folder, file) if file else mount.folder,
        shown,
        tuple(notes),
        mount.close,
        lambda: passed(planned, [one for one in mount.streams if one[0] in mine]) if stream else planned,
    )


def _transfer(commit: Commit, shown: str, paths: list[str], fetch: Fetch, *, is_adapter: bool) -> Transfer:
    """How weight files come that are not in the cache: as asked, or through the cache where they cannot stream."""
    assert commit.files is not None
    missing = [path for path in paths if not is_cached(commit, path)]
    nbytes = sum(commit.files[path].nbytes for path in missing)
    if not missing:
        return Transfer(shown, "here", len(paths), 0, 0)
    others = [path for path in missing if not path.endswith(".safetensors")]
    asked = fetch in ("stream", "stream?", "parts")
    if asked and not others and not is_adapter:
        return Transfer(shown, "stream", len(missing), nbytes, 0)
    reason = None
    if asked:
        reason = "an adapter" if is_adapter else f"'{show(others[0])}' is no safetensors file"
    return Transfer(shown, "cache", len(missing), nbytes, nbytes, reason)


def _is_adapter(commit: Commit, prefix: str, names: list[str]) -> bool:
    """Whether these files are an adapter, PEFT's or one file of diffusers' factors, whose header is read to know."""
    if not may_be_adapter(names):
        return False
    weights = adapter_files(names)
    return ADAPTER_CONFIG in names or not weights or _has_factors(commit, prefix + weights[0])


_with_factors: dict[tuple[str, str, str], bool] = {}  # by repository, commit and path: asked several times


def _has_factors(commit: Commit, path: str) -> bool:
    if is_cached(commit, path):
        return is_adapter_place(local(commit.folder, path))
    key = (commit.repo, commit.id, path)
    if key not in _with_factors:
        assert commit.files is not None
        remote = RemoteBytes(commit, path, commit.files[path])
        head = head_of(remote.read, remote.nbytes, has_header=True)
        _with_factors[key] = dialect_of(names_of_head(head)) == DIFFUSERS
    return _with_factors[key]


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
    return Place(here, shown, notes, _nothing, _nothing)


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
        if file is None and _is_adapter(commit, prefix, names):
            bring_weights(commit, [prefix + name for name in adapter_files(names)])
    return at.uri
