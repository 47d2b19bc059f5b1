"""The header of a safetensors file, read more strictly than the format's own library, and written.

A header is 8 bytes of little-endian length N, then N bytes of JSON, then the tensors without a gap.
What the library accepts although the specification forbids it (duplicate keys, unknown fields, trailing
junk) is refused here, because two readers would then see two different models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, TargetError, show, show_path
from rsoup.storage.formats import other_format
from rsoup.tensors import DTYPES, DType, TensorSpec

MAX_HEADER_BYTES = 100_000_000
MAX_RANK = 64
MAX_DIMENSION = 1 << 48
MAX_NAME_BYTES = 4096
MAX_BITS = 1 << 63
_FIELDS = frozenset(("dtype", "shape", "data_offsets"))
_FETCH_AGAIN = "an interrupted download? fetch it again"


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor in a file: what it is, and the bytes [begin, end) of the file it takes."""

    spec: TensorSpec
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ParsedHeader:
    """A checked header: the tensors in the order of their bytes, the metadata, notes for the reader."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    notes: tuple[str, ...]


def _refuse(file: str, what: str, hint: str | None = None, code: str = "E0801") -> RefusedFileError:
    return RefusedFileError(code, what, where=show_path(file), hint=hint)


def header_length(head: bytes, file_size: int, file: str) -> int:
    """N, the number of header bytes, from a file's first (up to) 64 bytes; refuses what is no safetensors.

    Raises RefusedFileError E0801, saying what the file is instead where its first bytes tell.
    """
    if file_size == 0:
        raise _refuse(file, "the file is empty (0 bytes)", _FETCH_AGAIN)
    length = int.from_bytes(head[:8], "little")
    fits = length <= min(MAX_HEADER_BYTES, file_size - 8) and head[8:9] in b"{ \t\r\n"
    # The magic of a pickle or an archive is also a length: only what cannot be a header is sniffed.
    if not fits and (other := other_format(head)):
        raise _refuse(file, f"this is not safetensors but {other[0]}", other[1])
    if file_size < 8:
        raise _refuse(file, f"the file has {file_size} bytes, too few for a header", _FETCH_AGAIN)
    if length > MAX_HEADER_BYTES:
        raise _refuse(
            file,
            f"the header claims {length} bytes; {MAX_HEADER_BYTES} is the limit (the file has {file_size})",
            "not a safetensors file, or a damaged one",
        )
    if length > file_size - 8:
        raise _refuse(file, f"the header claims {length} bytes and the file has {file_size}", _FETCH_AGAIN)
    return length


def parse_header(text: bytes, file_size: int, file: str) -> ParsedHeader:
    """The checked header whose JSON is `text`, of a file of `file_size` bytes called `file`.

    Raises RefusedFileError E0801 (the JSON), E0802 (a tensor's record), E0803 (the layout of the bytes).
    """
    notes: list[str] = []
    records = _load(text, file, notes)
    metadata = _metadata(records.pop("__metadata__", None), file)
    data_start = 8 + len(text)
    entries = {name: _entry(name, record, data_start, file, notes) for name, record in records.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_layout(ordered, data_start, file_size, file)
    return ParsedHeader(ordered, metadata, tuple(notes))


def _load(text: bytes, file: str, notes: list[str]) -> dict[str, object]:
    if not text.startswith(b"{"):
        if text.lstrip(b" \t\r\n").startswith(b"{"):
            notes.append(f"{show_path(file)}: white space before the header, which the format forbids")
        elif text.startswith(b"\xef\xbb\xbf"):
            raise _refuse(file, "the header begins with a byte order mark")
        else:
            raise _refuse(file, "the header is not a JSON object")
    if text.rstrip(b"\0") != text:
        raise _refuse(
            file,
            "the header is padded with NUL bytes instead of spaces",
            "write the file again with safetensors",
        )
    try:
        loaded = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_no_constant,
            parse_float=_no_float,
            parse_int=_whole,
        )
    except _DuplicateError as error:
        raise _refuse(file, f"the key '{show(error.args[0])}' occurs twice in the header") from None
    except UnicodeDecodeError:
        raise _refuse(file, "the header is not UTF-8") from None
    except RecursionError:
        raise _refuse(file, "the header is nested too deeply") from None
    except ValueError as error:
        raise _refuse(file, f"the header is not valid JSON: {show(error)}") from None
    if not isinstance(loaded, dict):
        raise _refuse(file, "the header is not a JSON object")
    return loaded


class _DuplicateError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateError(next(key for key in keys if keys.count(key) > 1))
    return result


def _no_constant(text: str) -> object:
    msg = f"{text} is not JSON"
    raise ValueError(msg)


def _no_float(text: str) -> object:
    msg = f"{text[:40]} where a whole number belongs"
    raise ValueError(msg)


def _whole(text: str) -> int:
    if text == "-0":
        msg = "-0 where a whole number belongs"
        raise ValueError(msg)
    return int(text)


def _metadata(value: object, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _refuse(file, "__metadata__ is not a table of texts")
    if not all(map(_is_unicode, (*value, *value.values()))):
        raise _refuse(file, "__metadata__ is not valid Unicode")
    return value


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _entry(name: str, record: object, data_start: int, file: str, notes: list[str]) -> Entry:
    if not isinstance(record, dict) or not record.keys() >= _FIELDS:
        raise _bad(file, name, "has a record without dtype, shape or data_offsets")
    _check_name(name, file)
    if len(record) > len(_FIELDS):
        notes.append(_unknown_fields(name, record, file))
    found, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
    dtype = DTYPES.get(found) if isinstance(found, str) else None
    if dtype is None:
        raise _bad(file, name, f"has the unknown dtype '{show(found)}'", f"known here: {', '.join(DTYPES)}")
    if not _naturals(shape, MAX_DIMENSION) or len(shape) > MAX_RANK:
        raise _bad(file, name, f"has the impossible shape {show(shape)}")
    if not _naturals(offsets, MAX_BITS) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _bad(file, name, f"has the impossible offsets {show(offsets)}")
    begin, end = offsets
    if math.prod(shape) * dtype.bits != (end - begin) * 8 or (begin == end and _overflows(shape, dtype)):
        raise _bad(file, name, _wrong_size(shape, dtype, end - begin))
    return Entry(TensorSpec(dtype, tuple(shape)), data_start + begin, data_start + end)


def _bad(file: str, name: str, what: str, hint: str | None = None) -> RefusedFileError:
    return _refuse(file, f"tensor '{show(name)}' {what}", hint, code="E0802")


def _check_name(name: str, file: str) -> None:
    if name.isascii() and len(name) <= MAX_NAME_BYTES:
        return
    if not _is_unicode(name):
        raise _bad(file, name, "has a name that is not valid Unicode")
    if (size := len(name.encode())) > MAX_NAME_BYTES:
        raise _bad(file, name, f"has a name of {size} bytes; {MAX_NAME_BYTES} is the limit")


def _unknown_fields(name: str, record: Mapping[str, object], file: str) -> str:
    """A note on fields a later version of the format may have added; refuses those that hold more than a value."""
    extra = sorted(record.keys() - _FIELDS)
    for field in extra:
        value = record[field]
        text = field + value if isinstance(value, str) else field
        if isinstance(value, dict | list) or not _is_unicode(text):
            raise _bad(file, name, f"has the unknown field '{show(field)}', which may change what it means")
    return (
        f"{show_path(file)}: tensor '{show(name)}' has the unknown field '{show(extra[0])}', which is ignored"
    )


def _naturals(value: object, limit: int) -> bool:
    if not isinstance(value, list) or not value:
        return value == []
    return {*map(type, value)} == {int} and min(value) >= 0 and max(value) < limit


def _overflows(shape: list[int], dtype: DType) -> bool:
    """Whether a shape without elements would be too large for 64 bits but for the zero in it."""
    return math.prod(max(size, 1) for size in shape) * dtype.bits >= MAX_BITS


def _wrong_size(shape: list[int], dtype: DType, has: int) -> str:
    what = f"({dtype.name}{shape})"
    bits = math.prod(shape) * dtype.bits
    if bits % 8:
        return f"{what} does not fill whole bytes"
    if bits // 8 == has:
        return f"{what} has the impossible shape {shape}"
    return f"{what} needs {bits // 8} bytes and has {has}"


def _check_layout(entries: Mapping[str, Entry], data_start: int, file_size: int, file: str) -> None:
    at = data_start
    for name, entry in entries.items():
        if entry.begin != at:
            kind = "a gap" if entry.begin > at else "an overlap"
            raise _refuse(file, f"{kind} in the file before tensor '{show(name)}' (byte {at})", code="E0803")
        at = entry.end
    if at < file_size:
        raise _refuse(
            file,
            f"{file_size - at} bytes follow the last tensor; expected {at}, have {file_size}",
            code="E0803",
        )
    if at > file_size:
        raise _refuse(
            file,
            f"the file ends too early: expected {at} bytes, have {file_size}",
            _FETCH_AGAIN,
            code="E0803",
        )


def encode_header(tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file that holds `tensors` in this order, and nothing between them.

    Length, canonical JSON (metadata first, its keys sorted) and the spaces that bring the data to a
    multiple of 8 bytes. Raises TargetError E0608 where no reader would take it, being too long.
    """
    if "__metadata__" in tensors:
        msg = "__metadata__ cannot be a tensor's name"
        raise ValueError(msg)
    records: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    at = 0
    for name, spec in tensors.items():
        records[name] = {
            "dtype": spec.dtype.name,
            "shape": list(spec.shape),
            "data_offsets": [at, at + spec.nbytes],
        }
        at += spec.nbytes
    text = json.dumps(records, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_BYTES:
        raise TargetError(
            "E0608",
            f"the header of one output file would have {len(text)} bytes; {MAX_HEADER_BYTES} is the limit",
            hint="write more, smaller files: --max-shard-size",
        )
    return len(text).to_bytes(8, "little") + text
