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

from rsoup.errors import RefusedFileError, show
from rsoup.tensors import DTYPES, TensorSpec

MAX_HEADER_BYTES = 100_000_000
MAX_RANK = 64
MAX_DIMENSION = 1 << 48
MAX_NAME_BYTES = 4096


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
    return RefusedFileError(code, what, where=show(file), hint=hint)


def header_length(head: bytes, file_size: int, file: str) -> int:
    """N, the number of header bytes, from a file's first (up to) 64 bytes; refuses what is no safetensors.

    Raises RefusedFileError E0801, saying what the file is instead where its first bytes tell.
    """
    if file_size == 0:
        raise _refuse(file, "the file is empty (0 bytes)", "an interrupted download? fetch it again")
    if other := _other_format(head):
        raise _refuse(file, f"this is not safetensors but {other[0]}", other[1])
    if file_size < 8:
        raise _refuse(file, f"the file has {file_size} bytes, too few for a header", "fetch it again")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise _refuse(
            file,
            f"the header claims {length} bytes; {MAX_HEADER_BYTES} is the limit",
            "not a safetensors file, or a damaged one",
        )
    if length > file_size - 8:
        raise _refuse(
            file,
            f"the header claims {length} bytes and the file has {file_size}",
            "an interrupted download? fetch it again",
        )
    return length


def _other_format(head: bytes) -> tuple[str, str] | None:
    start = head[:64].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, the note that stands for a file not yet fetched", "run: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "a web page saved under this name", "fetch the file again, with a token if it is gated"
    if head.startswith(b"GGUF"):
        return (
            "a GGUF file, whose weights are packed for llama.cpp",
            "mix the original checkpoints, then convert the soup",
        )
    if head.startswith(b"PK\x03\x04"):
        return (
            "a zip archive, such as torch.save writes",
            "load it with torch and save it with safetensors.torch.save_file",
        )
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return (
            "a Python pickle, as old torch.save wrote",
            "load it with torch and save it with safetensors.torch.save_file",
        )
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive", "unpack it first"
    if head.startswith(b"\x89HDF"):
        return (
            "an HDF5 file (TensorFlow or Keras weights)",
            "convert it with transformers: from_pretrained(..., from_tf=True)",
        )
    return None


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
            notes.append(f"{show(file)}: white space before the header, which the format forbids")
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


def _metadata(value: object, file: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise _refuse(file, "__metadata__ is not a table of texts")
    return value


def _entry(name: str, record: object, data_start: int, file: str, notes: list[str]) -> Entry:
    shown = show(name)
    if not isinstance(record, dict) or not {"dtype", "shape", "data_offsets"} <= record.keys():
        raise _refuse(
            file, f"the record of tensor '{shown}' lacks dtype, shape or data_offsets", code="E0802"
        )
    if len(record) > 3:
        extra = sorted(record.keys() - {"dtype", "shape", "data_offsets"})
        notes.append(
            f"{show(file)}: tensor '{shown}' has the unknown field '{show(extra[0])}', which is ignored"
        )
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        raise _refuse(file, f"the name of tensor '{shown}' is not valid Unicode", code="E0802") from None
    if size > MAX_NAME_BYTES:
        raise _refuse(file, f"a tensor's name has {size} bytes: '{shown}'", code="E0802")
    dtype = DTYPES.get(record["dtype"]) if isinstance(record["dtype"], str) else None
    if dtype is None:
        raise _refuse(
            file,
            f"tensor '{shown}' has the unknown dtype '{show(record['dtype'])}'",
            f"known here: {', '.join(DTYPES)}",
            code="E0802",
        )
    shape, offsets = record["shape"], record["data_offsets"]
    if not _naturals(shape) or len(shape) > MAX_RANK or any(size >= MAX_DIMENSION for size in shape):
        raise _refuse(file, f"tensor '{shown}' has the impossible shape {show(shape)}", code="E0802")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _refuse(file, f"tensor '{shown}' has the impossible offsets {show(offsets)}", code="E0802")
    bits = math.prod(shape) * dtype.bits
    if bits % 8:
        raise _refuse(
            file, f"tensor '{shown}' ({dtype.name}{list(shape)}) does not fill whole bytes", code="E0802"
        )
    if bits // 8 != offsets[1] - offsets[0]:
        raise _refuse(
            file,
            f"tensor '{shown}' ({dtype.name}{list(shape)}) needs {bits // 8} bytes and has {offsets[1] - offsets[0]}",
            code="E0802",
        )
    return Entry(TensorSpec(dtype, tuple(shape)), data_start + offsets[0], data_start + offsets[1])


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


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
            "an interrupted download? fetch it again",
            code="E0803",
        )


def encode_header(tensors: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file that holds `tensors` in this order, and nothing between them.

    Length, canonical JSON (metadata first, its keys sorted) and the spaces that bring the data to a
    multiple of 8 bytes.
    """
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
    return len(text).to_bytes(8, "little") + text
