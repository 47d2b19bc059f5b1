"""PyTorch files for the tests: right ones from torch, hostile ones by hand, damaged ones by chance.

torch is the oracle: what our reader makes of a file is compared with what `torch.load` makes of it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch

from rsoup.errors import RsoupError
from rsoup.storage.pickled.stored_tensor import read_stored
from rsoup.storage.pickled.torch_file import TorchFile, check_crc, parse_torch_file

Seen = dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes as a reader."""

    data: bytes

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.data)

    def read(self, start: int, buffer: memoryview) -> None:
        """Fill `buffer` from `start` on; reading beyond the end is a bug of the reader's."""
        assert start >= 0
        assert start + len(buffer) <= len(self.data)
        buffer[:] = self.data[start : start + len(buffer)]


def saved(value: object, **options: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse and nested tensors are said to be in beta
        torch.save(value, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def legacy(value: object) -> bytes:
    """What torch.save wrote before version 1.6."""
    return saved(value, _use_new_zipfile_serialization=False)


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive of these members, as Python writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """The members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archive_of(program: bytes, **storages: bytes) -> bytes:
    """An archive torch would load whose pickle is `program`; storages are given as `s0=…`."""
    records = {f"a/data/{name[1:]}": data for name, data in storages.items()}
    return zipped({"a/data.pkl": program, "a/byteorder": b"little", **records, "a/version": b"3\n"})


def with_pickle(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An archive of torch.save's whose pickle was changed, all checksums right."""
    members = unzipped(data)
    name = next(name for name in members if name.endswith("/data.pkl"))
    return zipped({**members, name: change(members[name])})


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def storage(kind: str = "FloatStorage", key: str = "0", numel: bytes = b"K\x06", more: bytes = b"") -> bytes:
    """The instructions that push a storage of six elements."""
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + numel + more + b"tQ"
    )


HOOKS = b"ccollections\nOrderedDict\n)R"


def tensor(
    offset: bytes = b"K\0",
    shape: bytes = b"K\x02K\x03\x86",
    strides: bytes = b"K\x03K\x01\x86",
    stored: bytes = b"",
    more: bytes = b"",
) -> bytes:
    """The instructions that push a float tensor of 2 × 3."""
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return rebuild + (stored or storage()) + offset + shape + strides + b"\x89" + HOOKS + more + b"tR"


def table(**entries: bytes) -> bytes:
    """A pickle of a dictionary of these entries."""
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries.items()) + b"u."


def six() -> bytes:
    """Six floats."""
    return struct.pack("<6f", *range(6))


def read_all(data: bytes, key: str | None = None) -> tuple[TorchFile, Seen]:
    """What our reader makes of a file: every tensor's dtype, shape and bytes, checksums verified."""
    reader = Memory(data)
    file = parse_torch_file(reader, "file.pt", key=key)
    check_crc(reader, file)
    seen: Seen = {}
    for name, stored in file.tensors.items():
        buffer = bytearray(stored.spec.nbytes)
        read_stored(reader, stored, 0, memoryview(buffer))
        seen[name] = (stored.spec.dtype.torch, stored.spec.shape, bytes(buffer))
    return file, seen


def as_seen(tensors: Mapping[str, object]) -> Seen:
    """The tensors among the values of a state dict, in the form of `read_all`."""
    return {
        name: (value.dtype, tuple(value.shape), raw(value))
        for name, value in tensors.items()
        if isinstance(value, torch.Tensor)
    }


def raw(value: torch.Tensor) -> bytes:
    """A tensor's bytes row by row."""
    flat = value.detach().reshape(-1).clone(memory_format=torch.contiguous_format)
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def loaded(data: bytes, *, weights_only: bool = True) -> object:
    """What torch makes of a file, on its own terms loading nothing but weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=weights_only)


# --- what is mutated


@cache
def seeds() -> tuple[bytes, ...]:
    """Small right files in both formats, flat and nested, with ties, views, metadata and several dtypes."""
    big = torch.arange(12, dtype=torch.float32)
    flat: OrderedDict[str, object] = OrderedDict(
        w=big.reshape(3, 4),
        t=torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).t(),
        v=big[4:9],
        i=torch.tensor(3),
        f=torch.arange(4.0).to(torch.float8_e4m3fn),
        b=torch.tensor([True, False]),
        e=torch.empty(0, 2),
    )
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    nested = {"epoch": 3, "state_dict": model.state_dict(), "args": {"lr": 0.1, "name": "x"}}
    parameters = {"p": torch.nn.Parameter(torch.ones(2, 2)), "q": torch.zeros(2, dtype=torch.float16)}
    old = {"a": big[2:8], "b": torch.arange(3)}
    return (
        saved(flat),
        saved(nested),
        saved(parameters),
        saved(old),
        legacy(old),
        legacy(model.state_dict()),
    )


OPS = (
    *(bytes([code]) for code in range(256) if chr(code) in "()01]}2NRabdeglostu.Q"),
    *(b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x89", b"\x8f", b"\x90", b"\x94"),
    *(b"K\0", b"K\1", b"K\2", b"K\3", b"K\4", b"K\x0c", b"K\xff", b"M\0\1", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f"),
    *(b"\x8a\x08" + bytes(7) + b"\x40", b"\x8a\x08" + b"\xff" * 8, b"\x8a\0", b"G" + bytes(8)),
    *(b"h\0", b"h\1", b"h\2", b"h\5", b"q\0", b"q\1", b"j\3\0\0\0", b"r\3\0\0\0"),
    *(text("w"), text("0"), text("1"), text("cpu"), text("storage"), text(""), b"X\1\0\0\0\xff", b"U\1w", b"\x8c\1w"),
    *(f"ctorch\n{name}\n".encode() for name in ("FloatStorage", "LongStorage", "ByteStorage", "float8_e5m2", "Size")),
    *(b"ctorch.storage\nUntypedStorage\n", b"ctorch._utils\n_rebuild_tensor_v3\n", HOOKS, tensor(), storage()),
    *(b"ctorch._utils\n_rebuild_parameter\n", b"cbuiltins\nset\n", b"cbuiltins\ngetattr\n", b"K\0\x85", b"K\3K\1\x86"),
)  # fmt: skip


def _operations(dice: random.Random, program: bytes) -> bytes:
    """One or two instructions put in, left out, doubled, exchanged or replaced."""
    try:
        marks = [at for _, _, at in pickletools.genops(program)]
    except (ValueError, IndexError):
        return _bytes(dice, program)
    parts = [program[a:b] for a, b in zip(marks, [*marks[1:], len(program)], strict=True)]  # type: ignore[misc]
    for _ in range(dice.randint(1, 2)):
        at = dice.randrange(len(parts))
        kind = dice.randrange(6)
        if kind == 0:
            parts.insert(at, dice.choice(OPS))
        elif kind == 1:
            del parts[at]
        elif kind == 2:
            parts.insert(dice.randrange(len(parts)), parts[at])
        elif kind == 3:
            other = dice.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = dice.choice(OPS)
        if not parts:
            break
    return b"".join(parts)


def _numbers(dice: random.Random, program: bytes) -> bytes:
    """One small number changed: an offset, a size, a stride, how many elements a storage has."""
    try:
        places = [at for code, _, at in pickletools.genops(program) if code.name in ("BININT1", "BININT")]
    except (ValueError, IndexError):
        return _bytes(dice, program)
    changed = program
    for _ in range(dice.randint(1, 2)):
        if places:
            at = dice.choice(places)
            assert at is not None
            value = dice.choice([0, 1, 2, 3, 4, 6, 12, 255, dice.randrange(256)])
            changed = changed[: at + 1] + bytes([value]) + changed[at + 2 :]
    return changed


def _bytes(dice: random.Random, data: bytes) -> bytes:
    """Single bytes changed, removed or put in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(changed)) if changed else 0
        kind = dice.randrange(5)
        if kind == 0:
            changed.insert(at, dice.randrange(256))
        elif changed and kind == 1:
            del changed[at]
        elif changed:
            changed[at] = dice.choice([changed[at] ^ 1 << dice.randrange(8), dice.randrange(256), 0, 255])
    return bytes(changed)


def _spliced(dice: random.Random, data: bytes) -> bytes:
    """A stretch of the file repeated elsewhere, or cut out."""
    begin = dice.randint(0, len(data))
    end = min(len(data), begin + dice.choice([1, 4, 16, 46, 100, 400]))
    at = dice.choice([end, dice.randint(0, len(data))])
    return data[:begin] + data[end:] if dice.random() < 0.3 else data[:at] + data[begin:end] + data[at:]


def _fields(dice: random.Random, data: bytes) -> bytes:
    """One field of one of the zip's headers changed."""
    magics = (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08")
    places = [at for magic in magics for at in range(len(data)) if data.startswith(magic, at)]
    if not places:
        return _bytes(dice, data)
    at = dice.choice(places) + 4 + 2 * dice.randrange(24)
    old = int.from_bytes(data[at : at + 2], "little")
    new = dice.choice(
        [0, 1, 8, 0xFFFF, old ^ 1 << dice.randrange(16), (old + dice.choice([-1, 1, 64])) % 65536]
    )
    return data[:at] + struct.pack("<H", new) + data[at + 2 :]


def _ends(dice: random.Random, data: bytes) -> bytes:
    """Bytes cut from an end or put before or behind."""
    more = dice.choice([b"\0", b"PK\5\6" + bytes(18), dice.randbytes(dice.randint(1, 40))])
    cut = dice.randint(0, len(data))
    return dice.choice([data[:cut], data[cut:], more + data, data + more, data[: -dice.randint(1, 30)]])


def _record(dice: random.Random, data: bytes) -> bytes:
    """A member left out, renamed, or with more or fewer bytes."""
    members = unzipped(data)
    name = dice.choice(list(members))
    content = members.pop(name)
    kind = dice.randrange(4)
    if kind == 0:
        members[name] = content + dice.randbytes(dice.randint(1, 9))
    elif kind == 1:
        members[name] = content[: dice.randint(0, len(content))]
    elif kind == 2:
        members[_bytes(dice, name.encode()).decode("latin-1")] = content
    return zipped(members, dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))


IN_PICKLE = {"operations": _operations, "numbers": _numbers, "pickle bytes": _bytes}
IN_FILE = {"file bytes": _bytes, "spliced": _spliced, "fields": _fields, "ends": _ends}
IN_ZIP = {"records": _record}
MUTATORS = (*IN_PICKLE, *IN_PICKLE, *IN_FILE, *IN_ZIP)


def mutated(dice: random.Random) -> tuple[str, bytes]:
    """A file made from a right one by one mutation, and the mutation's name."""
    data = dice.choice(seeds())
    kind = dice.choice(MUTATORS)
    is_zip = data.startswith(b"PK")
    if kind in IN_PICKLE and is_zip:
        return kind, with_pickle(data, lambda program: IN_PICKLE[kind](dice, program))
    if kind in IN_PICKLE:
        begin = len(pickle.dumps(0x1950A86A20F9469CFC6C, 2)) + len(pickle.dumps(1001, 2))
        end = data.rindex(b"\x80\x02]")
        return kind, data[:begin] + IN_PICKLE[kind](dice, data[begin:end]) + data[end:]
    if kind in IN_ZIP and is_zip:
        return kind, IN_ZIP[kind](dice, data)
    return kind, IN_FILE.get(kind, _bytes)(dice, data)


class Finding(NamedTuple):
    """An input on which the two readers disagree in a way they must not."""

    what: str
    mutator: str
    data: bytes


WIDER = ("Unsupported global", "Unsupported operand")


def at_key(value: object, key: str) -> object:
    """What lies at a key whose parts are joined by points, and may have points themselves."""
    if not isinstance(value, Mapping) or key in value:
        return value[key] if isinstance(value, Mapping) else None
    heads = [key[:at] for at in range(len(key)) if key[at] == "." and key[:at] in value]
    found = (at_key(value[head], key[len(head) + 1 :]) for head in heads)
    return next((part for part in found if part is not None), None)


def compare(data: bytes) -> str:
    """How our reader and torch's agree on a file; what begins with `!` must never be.

    Our list of harmless names and instructions is longer than torch's. Where torch stops at one of them, the
    judge is Python's own pickle: it may be asked, for our reader has seen that the file holds no other name.
    What stands beside the state dict (an optimizer's tensors, a scheduler) is never read, so it may be wrong.
    """
    try:
        file, ours = read_all(data)
    except RsoupError:
        ours = None
    agreed = "accepted by both"
    try:
        value = loaded(data)
    except Exception as error:
        if ours is None:
            return "refused by both"
        if file.key != "." or file.ignored:
            return "wider: torch stops outside the state dict"
        if not any(text in str(error) for text in WIDER):
            return f"!looser: {type(error).__name__}: {str(error)[:200]}"
        agreed = "wider, as pickle has it"
        try:
            value = loaded(data, weights_only=False)
        except Exception as error:
            return f"!looser than pickle: {type(error).__name__}: {str(error)[:200]}"
    if ours is None:
        return "stricter"
    found = value if file.key == "." else at_key(value, file.key)
    assert isinstance(found, Mapping)
    return agreed if as_seen(found) == ours else "!different"


def fuzz(seed: int, count: int, findings: list[Finding]) -> Counter[str]:
    """`count` mutated files given to both readers; any exception but a refusal comes through: it is the finding."""
    dice = random.Random(seed)
    tally: Counter[str] = Counter()
    for _ in range(count):
        mutator, data = mutated(dice)
        try:
            what = compare(data)
        except Exception as error:
            what = f"!raised {type(error).__name__}: {error}"
        tally[what if len(what) < 40 else what[:40]] += 1
        tally[mutator] += 1
        if what.startswith("!"):
            findings.append(Finding(what, mutator, data))
    return tally
