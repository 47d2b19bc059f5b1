"""Plain values as a pickle: None, booleans, numbers, texts, tuples, lists and tables, and nothing else."""

from __future__ import annotations

import struct


def dump(value: object) -> bytes:
    """The pickle (protocol 2) of a plain value; equal values, not one object twice. TypeError for anything else."""
    return b"\x80\x02" + _push(value) + b"."


def _push(value: object) -> bytes:
    if value is None:
        return b"N"
    if value is True:
        return b"\x88"
    if value is False:
        return b"\x89"
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + struct.pack("<B", len(data)) + data
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode()
        return b"X" + struct.pack("<L", len(text)) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_push, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_push, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_push(key) + _push(item) for key, item in value.items()) + b"u"
    msg = f"a {type(value).__name__} is not a plain value"
    raise TypeError(msg)
