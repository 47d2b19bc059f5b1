"""PyTorch files (.bin .pt .pth .ckpt), read without running anything: the tensors of the state dict in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, listing, show
from rsoup.storage.formats import other_than_torch
from rsoup.storage.pickled.pickle_machine import PickleEndError, interpret
from rsoup.storage.pickled.state_dict import Chosen, as_table, choose
from rsoup.storage.pickled.stored_tensor import StoredTensor
from rsoup.storage.pickled.torch_tensor import Storage, TensorReader, holds_tensors, is_tensor, storage_of
from rsoup.storage.pickled.torch_zip import TorchArchive, read_torch_archive
from rsoup.storage.pickled.zip_members import Member, Reader, check_crcs, read_bytes, read_member
from rsoup.storage.safetensors_header import MAX_NAME_BYTES

MAX_PICKLE_BYTES = 100_000_000
_FIRST_BYTES = 1 << 20
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class TorchFile:
    """The state dict of a PyTorch file: its tensors in the file's order, and what is to be said about it.

    `key` leads to it (`.`: it is the whole file); `ignored` are its entries that are no tensors; `tied`
    are names of one and the same tensor; `checked` are the members whose checksums can be verified.
    """

    tensors: Mapping[str, StoredTensor]
    key: str
    ignored: tuple[str, ...]
    notes: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    checked: tuple[Member, ...]
    shown: str


def parse_torch_file(reader: Reader, shown: str, *, key: str | None = None) -> TorchFile:
    """The state dict of a file torch.save wrote, in its zip format or the one before it.

    Raises RefusedFileError E0816 (not such a file, damaged, hostile), E0817 (its pickle asks for code),
    E0818 (a tensor that is not plain), UsageError E0215 (`key` is needed, or leads nowhere).
    """
    if reader.size == 0:
        raise _refuse(shown, "the file is empty (0 bytes)", "an interrupted download? fetch it again")
    head = read_bytes(reader, 0, min(512, reader.size))
    if head.startswith(b"PK\3\4"):
        return _parse_zip(reader, shown, key)
    if head[:1] == b"\x80":
        return _parse_legacy(reader, shown, key)
    if other := other_than_torch(head):
        raise _refuse(shown, f"this is not what torch.save writes but {other[0]}", other[1])
    raise _refuse(shown, "this is not what torch.save writes", "a damaged file? fetch it again")


def check_crc(reader: Reader, file: TorchFile) -> None:
    """Read the whole file and compare every checksum in it; E0816 where one is wrong.

    A file saved without checksums, or in the old format, has none: then nothing is read.
    """
    check_crcs(reader, file.checked, file.shown)


def _refuse(shown: str, what: str, hint: str | None = None) -> RefusedFileError:
    return RefusedFileError("E0816", what, where=shown, hint=hint)


class _Storages:
    """The storages a pickle has named so far; each may be named again, always as the same."""

    def __init__(self, shown: str, check: Callable[[Storage], None] | None = None) -> None:
        self._shown = shown
        self._check = check
        self.found: dict[str, Storage] = {}

    def __call__(self, saved: object) -> Storage:
        storage = storage_of(saved, self._shown, old=self._check is None)
        known = self.found.setdefault(storage.key, storage)
        if known is storage and self._check is not None:
            self._check(storage)
        if (known.kind, known.numel) != (storage.kind, storage.numel):
            raise _refuse(self._shown, f"storage '{show(storage.key)}' is described in two ways")
        return known


def parse_torch_tensor(reader: Reader, shown: str) -> StoredTensor:
    """The one tensor of a file torch.save wrote of a tensor, as distributed checkpoints hold them; as above."""
    value, begins, _ = _read_zip(reader, shown)
    if not is_tensor(value):
        raise _refuse(shown, "what is stored where a tensor belongs is none")
    return TensorReader(begins, shown).read("", value)


def _parse_zip(reader: Reader, shown: str, key: str | None) -> TorchFile:
    value, begins, archive = _read_zip(reader, shown)
    chosen = choose(value, key, shown)
    notes = _zip_notes(archive, shown)
    checked = () if archive.unchecked else tuple(archive.members.values())
    return _collected(chosen, begins, notes, checked, shown)


def _read_zip(reader: Reader, shown: str) -> tuple[object, Mapping[str, int], TorchArchive]:
    """(what the pickle says, where each storage begins, the archive)."""
    archive = read_torch_archive(reader, shown)
    program = archive.members["data.pkl"]
    data = read_member(reader, program, MAX_PICKLE_BYTES, shown, checked=not archive.unchecked)

    def check(storage: Storage) -> None:
        member = archive.members.get(f"data/{storage.key}")
        if member is None:
            raise _refuse(shown, f"storage '{show(storage.key)}' is missing", "fetch the file again")
        if member.size != storage.nbytes:
            what = f"storage '{show(storage.key)}' should have {storage.nbytes} bytes and has {member.size}"
            raise _refuse(shown, what)

    storages = _Storages(shown, check)
    value, end = interpret(data, shown, persistent=storages)
    if end != len(data):
        raise _refuse(shown, f"{len(data) - end} bytes follow the pickle in data.pkl")
    begins = {name: archive.members[f"data/{name}"].begin for name in storages.found}
    return value, begins, archive


def _zip_notes(archive: TorchArchive, shown: str) -> tuple[str, ...]:
    if archive.unchecked:
        return (f"{shown}: saved without checksums; damage to its weights cannot be seen",)
    return ()


def _parse_legacy(reader: Reader, shown: str, key: str | None) -> TorchFile:
    """Five pickles in a row (magic, version, system, the object, the storages' keys), then the storages."""
    pickles = _Pickles(reader, shown)
    if pickles.next() != _MAGIC:
        raise _refuse(
            shown, "this is a Python pickle, but not what torch.save writes", "save it with torch.save"
        )
    if pickles.next() != _PROTOCOL:
        raise _refuse(shown, f"its format has an unknown version; rsoup knows {_PROTOCOL}")
    system = pickles.next()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _refuse(shown, "its numbers are not little-endian")
    storages = _Storages(shown)
    value = pickles.next(storages)
    keys = pickles.next()
    if not isinstance(keys, list) or not all(isinstance(name, str) for name in keys):
        raise _refuse(shown, "the list of its storages is malformed")
    if len(set(keys)) != len(keys) or set(keys) != storages.found.keys():
        raise _refuse(shown, "the list of its storages does not fit the pickle")
    begins = {}
    at = pickles.at
    for name in keys:
        storage = storages.found[name]
        if at + 8 + storage.nbytes > reader.size:
            raise _refuse(shown, "the file ends in the middle of its weights", "fetch it again")
        if int.from_bytes(read_bytes(reader, at, 8), "little") != storage.numel:
            raise _refuse(shown, f"storage '{show(name)}' has another size than the pickle says")
        begins[name] = at + 8
        at += 8 + storage.nbytes
    if at != reader.size:
        raise _refuse(shown, f"{reader.size - at} bytes follow the last storage")
    note = f"{shown}: in the format of torch before 1.6, which has no checksums"
    return _collected(choose(value, key, shown), begins, (note,), (), shown)


class _Pickles:
    """Pickles one after the other at the start of a file, of which no more is read than they need."""

    def __init__(self, reader: Reader, shown: str) -> None:
        self._reader = reader
        self._shown = shown
        self._data = b""
        self.at = 0

    def next(self, storages: _Storages | None = None) -> object:
        while True:
            try:
                value, self.at = interpret(
                    self._data, self._shown, start=self.at, persistent=storages or self._no_storage
                )
            except PickleEndError:
                have = len(self._data)
                want = min(self._reader.size, MAX_PICKLE_BYTES, max(_FIRST_BYTES, 8 * have))
                if want == have:
                    raise
                self._data += read_bytes(self._reader, have, want - have)
            else:
                return value

    def _no_storage(self, saved: object) -> object:
        del saved
        raise _refuse(self._shown, "the pickle names a storage in the wrong place")


def _collected(
    chosen: Chosen, begins: Mapping[str, int], notes: tuple[str, ...], checked: tuple[Member, ...], shown: str
) -> TorchFile:
    """The tensors of the chosen table, everything about them checked."""
    reader = TensorReader(begins, shown)
    tensors: dict[str, StoredTensor] = {}
    ignored: list[str] = []
    views: dict[StoredTensor, list[str]] = {}
    for name, node in chosen.table.items():
        if not isinstance(name, str):
            raise _refuse(
                shown,
                f"the state dict has the key {_key_text(name)} where a name belongs",
                "name the part that is the model: --key NAME",
            )
        if not is_tensor(node):
            if as_table(node, shown) is None and holds_tensors(node):
                raise RefusedFileError(
                    "E0818",
                    f"'{show(name)}' holds tensors inside something that is none (a quantised layer?); without it this is no model",
                    where=shown,
                    hint="mix the original checkpoints, then quantise the soup",
                )
            ignored.append(name)
            continue
        _check_name(name, shown)
        tensors[name] = tensor = reader.read(name, node)
        if tensor.spec.numel:
            views.setdefault(tensor, []).append(name)
    if ignored:
        notes = (*notes, f"{shown}: {listing(ignored)} in the state dict: not a tensor, left out")
    return TorchFile(
        tensors,
        chosen.key,
        tuple(ignored),
        (*chosen.notes, *notes),
        tuple(tuple(names) for names in views.values() if len(names) > 1),
        checked,
        shown,
    )


def _key_text(key: object) -> str:
    return show(key) if isinstance(key, int | bytes | None) else "of no text"


def _check_name(name: str, shown: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise _refuse(shown, f"the tensor's name '{show(name)}' is not valid Unicode") from None
    if size > MAX_NAME_BYTES:
        raise _refuse(shown, f"a tensor's name has {size} bytes; {MAX_NAME_BYTES} is the limit")
