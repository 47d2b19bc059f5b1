"""The index.json of a sharded checkpoint: read as data that may lie, then held against the shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, listing, show
from rsoup.storage.files import MAX_JSON_BYTES, parse_json, read_whole, safe_name

MAX_TOTAL = 1e18


@dataclass(frozen=True, slots=True)
class Index:
    """Which shard an index says each tensor is in, and the bytes it claims they take together."""

    weight_map: Mapping[str, str]
    total_size: int | None


def read_index(path: str, shown: str, ending: str = ".safetensors") -> Index:
    """The index at `path`, of shards whose names end in `ending`. Raises RefusedFileError E0811 for a name that could lead out of the folder.

    E0811, too, for anything else it should not hold; E0805 and E0808 for what is no JSON of decent size.
    """
    value = parse_json(read_whole(path, shown, MAX_JSON_BYTES), shown)
    found = value.get("weight_map") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(found, dict) or not found:
        raise _refuse("the index has no weight_map", shown)
    trusted: set[str] = set()
    for tensor, name in found.items():
        if not isinstance(name, str):
            raise _refuse(f"the index names no file for tensor '{show(tensor)}'", shown)
        if name in trusted:
            continue
        trusted.add(name)
        if not safe_name(name) or not name.endswith(ending):
            raise _refuse(
                f"the index places tensor '{show(tensor)}' in '{show(name)}', which is not a shard beside it",
                shown,
            )
    metadata = value.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if not isinstance(total, int | float) or not abs(total) < MAX_TOTAL:
        total = None
    return Index(found, None if total is None else int(total))


def check_index(
    index: Index, placed: Mapping[str, str], nbytes: int, shown: str, *, unindexed: bool
) -> tuple[str, ...]:
    """Notes on an index whose shards hold the tensors `placed` (name → shard) of `nbytes` bytes together.

    Raises RefusedFileError E0811 where it lists what is not there, and, without `unindexed`, where the shards
    hold what it does not list.
    """
    notes = []
    if absent := [tensor for tensor, file in index.weight_map.items() if placed.get(tensor) != file]:
        raise _refuse(
            f"the index lists {listing(absent, 3)}, not in the shard it names",
            shown,
            "index and shards are of different saves; fetch or save them again",
        )
    if unlisted := [tensor for tensor in placed if tensor not in index.weight_map]:
        if not unindexed:
            raise _refuse(
                f"the shards hold {listing(unlisted, 3)}, which the index does not list",
                shown,
                "if they belong to the model: --allow unindexed",
            )
        notes.append(f"{len(unlisted)} tensors that the index does not list are read")
    if index.total_size is not None and index.total_size != nbytes:
        notes.append(f"the index claims {index.total_size} bytes; the shards hold {nbytes}")
    return tuple(notes)


def _refuse(what: str, shown: str, hint: str | None = None) -> RefusedFileError:
    return RefusedFileError("E0811", what, where=shown, hint=hint)
