"""An address in an object store → a place on this machine that opens like any checkpoint."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from rsoup.dialects import ADAPTER_CONFIG, ADAPTER_FILES, DIFFUSERS, dialect_of, names_of_head, split_stacked
from rsoup.errors import RefusedFileError, RsoupError, listing
from rsoup.hub.address import is_inside
from rsoup.hub.choice import adapter_files, beside, local, names_in, weights_of
from rsoup.hub.mount import LARGE_BYTES, differing, head_of
from rsoup.hub.place import Place
from rsoup.hub.place import at_hand as at_hand_of_the_hub
from rsoup.remote.file import StreamedFile, join, leave
from rsoup.remote.halting import Halt
from rsoup.remote.pool import Lane, dismiss, hire
from rsoup.remote.transfer import Fetch, Transfer, passed
from rsoup.storage.files import forget_elsewhere, keep_elsewhere
from rsoup.storage.folder import is_weights
from rsoup.stores.access import Store, StoredObject, changed
from rsoup.stores.address import StoreAddress, is_store, parse
from rsoup.stores.snapshot import keep_copy, kept_copy

_PIECE: Final = 1 << 23


def place(address: StoreAddress, *, variant: str | None = None, fetch: Fetch = "cache") -> Place:
    """The checkpoint at `address`: small files here, weights streamed, each part under the ETag that was listed.

    "cache", and what is no safetensors file, is copied into a temporary folder for as long as it is open; an adapter
    for as long as the process runs. Raises AccessError E0746, RefusedFileError E0747 and E0749, BusyError
    E7510, and what `weights_of` raises.
    """
    here = _Listed(address)
    if (adapter := here.adapter()) is not None:
        copied = _transfer(address.shown, [here.objects[here.prefix + name] for name in adapter], "cache")
        return Place(here.copied(adapter), address.shown, (), _nothing, lambda: copied)
    mount = StoreMount(here.store, here.prefix, here.objects, copies=fetch == "cache")
    try:
        if here.file is not None:
            weights = [here.file]
        else:
            mount.bring(beside(here.names))
            weights = weights_of(mount.folder, here.names, variant, address.shown, lambda _: None)
        for name in weights:
            mount.place(name)
    except BaseException:
        mount.close()
        raise
    planned = _transfer(address.shown, [here.objects[here.prefix + name] for name in weights], fetch)
    return Place(
        os.path.join(mount.folder, here.file or ""),
        address.shown,
        (),
        mount.close,
        lambda: (
            passed(planned, mount.streams)
            if planned.way == "stream" and fetch in ("stream", "parts")
            else planned
        ),
    )


def at_hand(uri: str) -> str:
    """An address by its commit and what is small of it here, an adapter of an object store copied; a path as it is.

    Raises what opening either raises.
    """
    if "://" in uri and (both := split_stacked(uri)) is not None:
        return "+".join(map(at_hand, both))
    if not is_store(uri) or os.path.lexists(uri):
        return at_hand_of_the_hub(uri)
    here = _Listed(parse(uri))
    if (adapter := here.adapter()) is not None:
        here.copied(adapter)
    return uri


def lies_there(uri: str, name: str) -> bool:
    """Whether a file of this name lies at the top of the folder at `uri`. Raises what listing it raises."""
    return name in _Listed(parse(uri)).names


def _nothing() -> None:
    return None


class _Listed:
    """What lies at an address: `names` in its folder, the one `file` that was named, all `objects` by key."""

    def __init__(self, address: StoreAddress) -> None:
        self.address, self.store = address, Store(address)
        self.objects = {found.key: found for found in self.store.objects()}
        self._without_markers()
        folder, _, name = address.path.rpartition("/")
        self.file = name if address.path in self.objects else None
        if self.file in ADAPTER_FILES:  # its configuration lies beside it
            around = Store(replace(address, path=folder))
            self.objects |= {found.key: found for found in around.objects()}
            self._without_markers()
        folders = _folders_of(self.objects)
        if hostile := [key for key in self.objects if key in folders or not is_inside(key)]:
            raise RefusedFileError("E0749", f"names that no folder here should hold: {listing(hostile, 3)}", where=address.shown,
                                   hint="copy the files you need to a folder")  # fmt: skip
        folder = address.path if self.file is None else folder
        self.prefix = f"{folder}/" if folder else ""
        self.names = names_in(self.objects, folder)

    def _without_markers(self) -> None:
        """Leave out empty objects with others below them: with such a one a store's web page makes a "folder"."""
        for key in _folders_of(self.objects) & self.objects.keys():
            if not self.objects[key].nbytes:
                del self.objects[key]

    def adapter(self) -> list[str] | None:
        """The weights of the adapter that lies there; None for anything else."""
        top = [name for name in self.names if "/" not in name]
        if ADAPTER_CONFIG in top and self.file in (None, *ADAPTER_FILES):
            return adapter_files(self.names)
        weights = [self.file] if self.file is not None else [name for name in top if is_weights(name)]
        if (
            len(weights) != 1
            or not weights[0].endswith(".safetensors")
            or {"config.json", "model_index.json"} & set(top)
        ):
            return None
        found = self.objects[self.prefix + weights[0]]
        head = head_of(
            lambda start, buffer: self.store.read(found, start, buffer, Halt()), found.nbytes, has_header=True
        )
        return weights if dialect_of(names_of_head(head)) == DIFFUSERS else None

    def copied(self, weights: Sequence[str]) -> str:
        """A copy of the adapter as it is now: a folder that is removed when the process ends, or the file in it.

        It is made once, and anew when an object of it is another one.
        """
        names = list(dict.fromkeys([*beside(self.names), *weights]))
        found = [self.objects[self.prefix + name] for name in names]
        if (made := kept_copy(self.address.uri, found)) is not None:
            return made
        folder = tempfile.mkdtemp(prefix="rsoup-store-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, one in zip(names, found, strict=True):
            _copy(self.store, one, _path(folder, name))
        made = os.path.join(folder, self.file or "")
        keep_copy(self.address.uri, made, found)
        return made


def _folders_of(keys: Iterable[str]) -> set[str]:
    return {key[:at] for key in keys for at, sign in enumerate(key) if sign == "/"}


def _copy(store: Store, found: StoredObject, at: str) -> None:
    with open(at, "wb") as file:
        for start in range(0, found.nbytes, _PIECE):
            data = bytearray(min(_PIECE, found.nbytes - start))
            store.read(found, start, memoryview(data), Halt())
            file.write(data)


def _path(folder: str, name: str) -> str:
    at = local(folder, name)
    os.makedirs(os.path.dirname(at), exist_ok=True)
    return at


def _transfer(shown: str, weights: Sequence[StoredObject], fetch: Fetch) -> Transfer:
    nbytes = sum(found.nbytes for found in weights)
    others = [found.key for found in weights if not found.key.endswith(".safetensors")]
    if fetch in ("cache", "cache?") or others:
        reason = f"'{others[0].rpartition('/')[2]}' is no safetensors file" if others else None
        return Transfer(shown, "copy", len(weights), nbytes, nbytes, reason)
    return Transfer(shown, "stream", len(weights), nbytes, 0)


class StoreMount:
    """A temporary folder of a store's files: small ones and copies as they are, other weights as placeholders."""

    def __init__(self, store: Store, prefix: str, objects: dict[str, StoredObject], *, copies: bool) -> None:
        self._store, self._prefix, self._objects, self._copies = store, prefix, objects, copies
        self._keys: list[tuple[int, int]] = []
        self._lane: Lane | None = hire()
        self.streams: list[tuple[str, StreamedFile]] = []
        self.folder = tempfile.mkdtemp(prefix="rsoup-store-")

    def bring(self, names: Sequence[str]) -> None:
        """Have these files here, large ones as placeholders."""
        for name in names:
            found = self._objects[self._prefix + name]
            if found.nbytes > LARGE_BYTES:
                self.place(name)
            else:
                _copy(self._store, found, _path(self.folder, name))

    def place(self, name: str) -> None:
        """Have a placeholder of a weight file, or a copy."""
        found = self._objects[self._prefix + name]
        if self._copies or not (name.endswith(".safetensors") or found.nbytes > LARGE_BYTES):
            _copy(self._store, found, _path(self.folder, name))
            return
        assert self._lane is not None
        lane, where = self._lane, f"{self._store.address.url}/{found.key}"
        head = head_of(
            lambda start, buffer: self._store.read(found, start, buffer, Halt()),
            found.nbytes,
            has_header=name.endswith(".safetensors"),
        )
        stamp = ("store", self._store.address.url, found.key, found.nbytes, found.etag, found.version)

        def fetch(start: int, buffer: memoryview, halt: Halt) -> None:
            self._store.read(found, start, buffer, halt)

        def wrong() -> RsoupError:
            return changed(where)

        made = join(lane, stamp, lambda: StreamedFile(
            fetch, found.nbytes, lane, head=head, sha256=None, stamp=stamp, wrong=wrong, differ=lambda: differing(where),
        ))  # fmt: skip
        made.unstated = "the store states no SHA-256; all parts came under one ETag"
        self.streams.append((found.key, made))
        at = _path(self.folder, name)
        with open(at, "wb") as placeholder:
            placeholder.write(head)
            placeholder.truncate(found.nbytes)
            status = os.fstat(placeholder.fileno())
        key = (status.st_dev, status.st_ino)
        keep_elsewhere(key, made)
        self._keys.append(key)

    def close(self) -> None:
        """Forget the placeholders, end what is streamed and remove the folder."""
        keys, self._keys = self._keys, []
        for key in keys:
            forget_elsewhere(key)
        lane, self._lane = self._lane, None
        if lane is not None:
            for _, file in self.streams:
                leave(file)
            dismiss(lane)
        shutil.rmtree(self.folder, ignore_errors=True)
