"""The .metadata of a distributed checkpoint of torch: a pickle, read as data, of what is stored where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import RefusedFileError, show
from rsoup.storage.pickled.pickle_machine import interpret
from rsoup.storage.pickled.pickle_values import Call, Key

NAME: Final = ".metadata"
CONVERT: Final = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt"
_CLASSES = "torch.distributed.checkpoint.metadata"
_NAMES = frozenset(
    (_CLASSES, name)
    for name in (
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "_MEM_FORMAT_ENCODING", "StorageMeta",
    )
) | {("torch.distributed.checkpoint.filesystem", "_StorageInfo")}  # fmt: skip

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a distributed checkpoint holds, by the names of its tensors.

    `shapes` are the whole tensors', `chunks` the (offsets, sizes) they are split into, `paths` the keys that lead
    to them in the state that was saved, `places` where a chunk lies: (tensor, offsets) → (file, first byte, bytes).
    """

    shapes: Mapping[str, Sizes]
    chunks: Mapping[str, Sequence[tuple[Sizes, Sizes]]]
    paths: Mapping[str, Sequence[object]]
    places: Mapping[tuple[str, Sizes], tuple[str, int, int]]


def parse_metadata(data: bytes, at: str) -> Metadata:
    """The metadata in a pickle, which is never run. Raises RefusedFileError E0816, E0817 (the pickle) and E0819."""
    value, _ = interpret(data, at, also=_NAMES)
    tensors = {
        str(name): _state(node, at)
        for name, node in _table(value, "state_dict_metadata", at).items()
        if _is(node, "TensorStorageMetadata")
    }
    paths = _table(value, "planner_data", at, optional=True)
    return Metadata(
        {name: _size(state.get("size"), at) for name, state in tensors.items()},
        {name: _chunks(state, name, at) for name, state in tensors.items()},
        {name: path if isinstance(path := paths.get(name), tuple) else (name,) for name in tensors},
        _places(_table(value, "storage_data", at), at),
    )


def _chunks(state: Mapping[str, object], name: str, at: str) -> list[tuple[Sizes, Sizes]]:
    chunks = state.get("chunks")
    if not isinstance(chunks, list) or not chunks:
        raise not_whole(at, f"tensor '{show(name)}' has no rows anywhere")
    states = [_state(chunk, at) for chunk in chunks]
    return [(_size(chunk.get("offsets"), at), _size(chunk.get("sizes"), at)) for chunk in states]


def _places(
    table: Mapping[object, object], at: str
) -> dict[tuple[str, tuple[int, ...]], tuple[str, int, int]]:
    """(tensor, offsets of its rows) → (file, first byte, number of bytes)."""
    found = {}
    for key, info in table.items():
        index = _state(key.value if isinstance(key, Key) else key, at)
        name, offset, where = index.get("fqn"), index.get("offset"), _state(info, at)
        if offset is None:
            continue  # bytes, not a tensor
        file, begin, length = (where.get(what) for what in ("relative_path", "offset", "length"))
        if where.get("transform_descriptors"):
            raise RefusedFileError(
                "E0819",
                "its tensors are compressed",
                where=at,
                hint=f"write it as one checkpoint first: {CONVERT}",
            )
        if (
            not isinstance(name, str)
            or not isinstance(file, str)
            or not _natural(begin)
            or not _natural(length)
        ):
            raise not_whole(at, "a place in it makes no sense")
        assert isinstance(begin, int)
        assert isinstance(length, int)
        found[name, _size(offset, at)] = (file, begin, length)
    return found


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _size(value: object, at: str) -> tuple[int, ...]:
    """The numbers of a torch.Size."""
    if isinstance(value, Call) and str(value.function) == "torch.Size" and len(value.args) == 1:
        sizes = value.args[0]
        if isinstance(sizes, tuple | list) and all(map(_natural, sizes)) and len(sizes) <= 64:
            return tuple(sizes)
    raise not_whole(at, "a size in it makes no sense")


def _is(node: object, name: str) -> bool:
    return isinstance(node, Call) and node.function.module == _CLASSES and node.function.name == name


def _state(node: object, at: str) -> Mapping[str, object]:
    if isinstance(node, Call) and isinstance(node.state, dict):
        return node.state
    raise not_whole(at, "it does not describe a checkpoint")


def _table(value: object, name: str, at: str, *, optional: bool = False) -> Mapping[object, object]:
    found = _state(value, at).get(name) if _is(value, "Metadata") else None
    if found is None and optional:
        return {}
    if not isinstance(found, dict):
        raise not_whole(at, f"it has no {name}")
    return found


def not_whole(where: str, what: str) -> RefusedFileError:
    """The refusal of a distributed checkpoint that contradicts itself or lacks something."""
    return RefusedFileError(
        "E0819",
        f"the distributed checkpoint is not whole: {what}",
        where=where,
        hint="fetch or save it again",
    )
