"""Differential fuzzing of the header parser: mutated files, held against the safetensors library."""

from __future__ import annotations

import copy
import json
import random
import re
from collections import Counter
from collections.abc import Callable

from checkpoints import raw_safetensors, record
from safetensors import SafetensorError, deserialize

from rsoup.errors import RefusedFileError
from rsoup.storage.safetensors_header import ParsedHeader, header_length, parse_header

Header = dict[str, object]

SEEDS: tuple[Header, ...] = (
    {},
    {"__metadata__": {"format": "pt"}},
    {"w": record("F32", [2, 3], 0, 24)},
    {
        "__metadata__": {"format": "pt", "step": "7"},
        "a.weight": record("BF16", [4, 2], 0, 16),
        "a.bias": record("BF16", [4], 16, 24),
        "scalar": record("F64", [], 24, 32),
        "empty": record("F32", [0, 5], 32, 32),
        "flags": record("BOOL", [3], 32, 35),
        "unaligned": record("I64", [1], 35, 43),
    },
    {"huge": record("U8", [1 << 40, 1 << 10, 0], 0, 0), "new": record("U8", [2], 0, 2, later="1")},
    {"packed": record("F4", [2, 3], 0, 3), "six": record("F6_E2M3", [4], 3, 6)},
    {"ü": record("U8", [1], 0, 1), "\u202e": record("I8", [1], 1, 2), "": record("C64", [1], 2, 10)},
)
NUMBERS: tuple[object, ...] = (
    *(0, 1, 2, 3, 5, 8, 24, 1 << 31, 1 << 48, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64),
    *(-1, 1.0, 1e30, True, False, None, "4", [4], {}),
)
DTYPES = (
    "F64",
    "F32",
    "F16",
    "BF16",
    "I8",
    "U8",
    "BOOL",
    "F4",
    "F6_E3M2",
    "F8_E8M0",
    "C64",
    "f32",
    "F24",
    "",
)
TOKENS = (
    *(b"-0", b"-1", b"1e0", b"4.0", b"00", b"1E9999", b"9" * 25, b"9" * 5000, b"NaN", b"Infinity"),
    *(
        b"true",
        b"null",
        b"{}",
        b"[]",
        b"[" * 200,
        b"[" * 200 + b"]" * 200,
        b'{"a":' * 200,
        b",",
        b":",
        b'"',
        b"\\",
        b"}",
        b"]",
        b" ",
        b"\t",
    ),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\\ud83d\\ude00",
        b"\\x41",
        b"\0",
        b"\x1b",
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
    ),
    *(b'"w":', b'"__metadata__":', b'"dtype":"F32",', b'"shape":[0],', b'"data_offsets":[0,0]', b'"x":1,'),
    *(b"\xef\xbb\xbf", b"/**/", b"//", b"'", "\u2028".encode()),
)


def _structure(dice: random.Random, header: Header) -> bytes:
    """One value of one record replaced, removed, doubled or added."""
    header = copy.deepcopy(header)
    name = dice.choice([*header, "new"])
    target = header.get(name)
    if not isinstance(target, dict) or dice.random() < 0.2:
        header[name] = dice.choice(
            [target, None, [], {}, "F32", 4, record("F32", [1], 0, 4), record("U8", [0], 0, 0)]
        )
        return json.dumps(header).encode()
    key = dice.choice(["dtype", "shape", "data_offsets", "data_offsets", "extra"])
    old = target.get(key)
    if key == "dtype":
        target[key] = dice.choice(DTYPES)
    elif isinstance(old, list) and old and dice.random() < 0.8:
        old[dice.randrange(len(old))] = dice.choice([dice.randint(0, 50), *NUMBERS])
    elif isinstance(old, list) and dice.random() < 0.7:
        old.insert(dice.randint(0, len(old)), dice.choice([0, 1, 1, *NUMBERS]))
    elif dice.random() < 0.3:
        target.pop(key, None)
    else:
        target[key] = dice.choice(NUMBERS)
    if dice.random() < 0.2:
        items = list(header.items())
        dice.shuffle(items)
        header = dict(items)
    return json.dumps(header, ensure_ascii=dice.random() < 0.5).encode()


def _tokens(dice: random.Random, header: Header) -> bytes:
    """A telling piece of text put in, or put in place of something."""
    text = json.dumps(header).encode()
    for _ in range(dice.randint(1, 2)):
        at = dice.randint(0, len(text))
        text = text[:at] + dice.choice(TOKENS) + text[at + dice.choice([0, 0, 1, 2, 5]) :]
    return text


def _values(dice: random.Random, header: Header) -> bytes:
    """One number or text replaced by another piece of text, so that the rest stays well formed."""
    text = json.dumps(header).encode()
    found = list(re.finditer(rb'[0-9]+|"[^"]*"', text))
    if not found:
        return dice.choice(TOKENS)
    place = dice.choice(found)
    return text[: place.start()] + dice.choice(TOKENS) + text[place.end() :]


def _doubled(dice: random.Random, header: Header) -> bytes:
    """A stretch of the text repeated elsewhere: keys and records that occur twice."""
    text = json.dumps(header).encode()
    begin = dice.randint(0, len(text))
    end = dice.randint(begin, min(len(text), begin + 80))
    at = dice.choice([end, dice.randint(0, len(text))])
    return text[:at] + dice.choice([b"", b",", b", "]) + text[begin:end] + text[at:]


def _bytes(dice: random.Random, header: Header) -> bytes:
    """Single bytes changed, removed or put in."""
    text = bytearray(json.dumps(header).encode())
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(text)) if text else 0
        kind = dice.randrange(4)
        if kind == 0:
            text.insert(at, dice.randrange(256))
        elif text and kind == 1:
            del text[at]
        elif text and kind == 2:
            text[at] ^= 1 << dice.randrange(8)
        elif text:
            text[at] = dice.choice(b'0123456789[]{}:," -.eE\\')
    return bytes(text)


MUTATORS: tuple[Callable[[random.Random, Header], bytes], ...] = (
    _structure,
    _structure,
    _tokens,
    _values,
    _values,
    _doubled,
    _bytes,
)


def mutated(dice: random.Random) -> bytes:
    """A file made from a right one by one mutation of its header, sometimes of its length or its data too."""
    header = dice.choice(SEEDS)
    text = dice.choice(MUTATORS)(dice, header)
    size = max([0, *(r["data_offsets"][1] for r in header.values() if isinstance(r, dict) and "shape" in r)])
    if dice.random() < 0.1:
        text += dice.choice([b" ", b"\0", b"\n", b" " * 7, b"x"])
    if dice.random() < 0.1:
        size = max(0, size + dice.choice([-8, -1, 1, 4, 8, 100]))
    length = None
    if dice.random() < 0.05:
        length = dice.choice([0, 1, len(text) - 1, len(text) + 1, len(text) + size, 1 << 40, (1 << 64) - 1])
    whole = raw_safetensors(text, bytes(size), length=max(0, length) if length is not None else None)
    return whole[: dice.randint(0, len(whole))] if dice.random() < 0.02 else whole


def ours(data: bytes) -> ParsedHeader | None:
    """What our parser makes of a file's bytes, the library not asked; None where it refuses."""
    try:
        length = header_length(data[:64], len(data), "fuzzed")
        return parse_header(data[8 : 8 + length], len(data), "fuzzed")
    except RefusedFileError:
        return None


def same(data: bytes, parsed: ParsedHeader, theirs: list[tuple[str, dict[str, object]]]) -> bool:
    """Whether both readers see the same tensors with the same bytes."""
    seen = {
        name: (entry.spec.dtype.name, list(entry.spec.shape), data[entry.begin : entry.end])
        for name, entry in parsed.entries.items()
    }
    return seen == {name: (view["dtype"], view["shape"], view["data"]) for name, view in theirs}


def fuzz(seed: int, count: int) -> Counter[str]:
    """`count` mutated files given to both parsers: how many both take or refuse, we alone, they alone.

    Any other exception than a refusal comes through: it is the finding.
    """
    dice = random.Random(seed)
    tally: Counter[str] = Counter()
    for _ in range(count):
        data = mutated(dice)
        parsed = ours(data)
        try:
            theirs = deserialize(data)  # type: ignore[no-untyped-call]  # the library has no types
        except SafetensorError:
            tally["refused by both" if parsed is None else "looser"] += 1
            if parsed is not None:
                tally[f"looser: {data!r}"] += 1
            continue
        if parsed is None:
            tally["stricter"] += 1
        elif same(data, parsed, theirs):
            tally["accepted by both"] += 1
        else:
            tally[f"different: {data!r}"] += 1
    return tally
