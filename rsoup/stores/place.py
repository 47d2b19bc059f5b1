"""An address in an object store → a place on this machine that opens like any checkpoint."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Final

from rsoup.dialects import ADAPTER_CONFIG, ADAPTER_FILES
from rsoup.errors import RefusedFileError, RsoupError, listing
from rsoup.hub.address import is_inside
from rsoup.hub.choice import beside, local, names_in, weights_of
from rsoup.hub.mount import LARGE_BYTES, differing, head_of
from rsoup.hub.place import Place
from rsoup.remote.file import StreamedFile, join, leave
from rsoup.remote.halting import Halt
from rsoup.remote.pool import Lane, dismiss, hire
from rsoup.remote.transfer import Fetch, Transfer, passed
from rsoup.storage.files import forget_elsewhere, keep_elsewhere
from rsoup.stores.access import Store, StoredObject, changed
from rsoup.stores.address import StoreAddress

_PIECE: Final = 1 << 23


def place(address: StoreAddress, *, variant: str | None = None, fetch: Fetch = "cache") -> Place:
    """The checkpoint at `address`: small files here, weights streamed, each part under the ETag that was listed.

    "cache", and what is no safetensors file, is copied into a temporary folder for as long as it is open. Raises
    AccessError E0746, RefusedFileError E0747 and E0749, BusyError E7510, and what `weights_of` raises.
    """
    store = Store(address)
    objects = {found.key: found for found in store.objects()}
    if hostile := [key for key in objects if not is_inside(key)]:
        raise RefusedFileError("E0749", f"names that no folder here should hold: {listing(hostile, 3)}", where=address.shown,
                               hint="copy the files you need to a folder")  # fmt: skip
    file = address.path.rpartition("/")[2] if address.path in objects else None
    folder = address.path if file is None else address.path.rpartition("/")[0]
    prefix = f"{folder}/" if folder else ""
    names = names_in(objects, folder)
    if ADAPTER_CONFIG in names or file in ADAPTER_FILES:
        raise RefusedFileError("E0749", "adapters are read from a disk or from the Hub", where=address.shown,
                               hint="copy it to a folder first: it is small")  # fmt: skip
    mount = StoreMount(store, prefix, objects, copies=fetch == "cache")
    try:
        if file is not None:
            weights = [file]
        else:
            mount.bring(beside(names))
            weights = weights_of(mount.folder, names, variant, address.shown, lambda _: None)
        for name in weights:
            mount.place(name)
    except BaseException:
        mount.close()
        raise
    planned = _transfer(address.shown, [objects[prefix + name] for name in weights], fetch)
    return Place(
        os.path.join(mount.folder, file) if file else mount.folder,
        address.shown,
        (),
        mount.close,
        lambda: (
            passed(planned, mount.streams)
            if planned.way == "stream" and fetch in ("stream", "parts")
            else planned
        ),
    )


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
            if self._objects[self._prefix + name].nbytes > LARGE_BYTES:
                self.place(name)
            else:
                self._copy(name)

    def place(self, name: str) -> None:
        """Have a placeholder of a weight file, or a copy."""
        found = self._objects[self._prefix + name]
        if self._copies or not (name.endswith(".safetensors") or found.nbytes > LARGE_BYTES):
            self._copy(name)
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
        at = self._path(name)
        with open(at, "wb") as placeholder:
            placeholder.write(head)
            placeholder.truncate(found.nbytes)
            status = os.fstat(placeholder.fileno())
        key = (status.st_dev, status.st_ino)
        keep_elsewhere(key, made)
        self._keys.append(key)

    def _copy(self, name: str) -> None:
        found = self._objects[self._prefix + name]
        with open(self._path(name), "wb") as file:
            for start in range(0, found.nbytes, _PIECE):
                data = bytearray(min(_PIECE, found.nbytes - start))
                self._store.read(found, start, memoryview(data), Halt())
                file.write(data)

    def _path(self, name: str) -> str:
        at = local(self.folder, name)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        return at

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
