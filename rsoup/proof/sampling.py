"""Which blocks a sample looks at: drawn by SHA-256(root ‖ nonce), so that whoever made the soup cannot know. Pure."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rsoup.errors import UsageError, show
from rsoup.tensors import TensorSpec

BLOCK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Sample:
    """Blocks to look at: tensor → the numbers of its blocks; `drawn` of `total` come from the draw over all.

    The others were added so that every mixed tensor has one.
    """

    blocks: Mapping[str, tuple[int, ...]]
    drawn: int
    total: int

    @property
    def count(self) -> int:
        """How many blocks are looked at."""
        return sum(map(len, self.blocks.values()))

    def found_with(self, share: float) -> float:
        """1 − (1 − f)^k: the least probability with which the draw meets one of f = `share` altered blocks."""
        return -math.expm1(self.drawn * math.log1p(-share)) if share < 1 else 1.0


def block_elements(spec: TensorSpec) -> int:
    """Elements of a tensor's block: as many as fill 64 KiB, or a little less where they do not fill whole bytes."""
    return BLOCK_BYTES // spec.dtype.bits * 8


def block_count(spec: TensorSpec) -> int:
    """The number of blocks of a tensor."""
    return -(-spec.numel // block_elements(spec))


def parse_sample(text: str | int) -> int | Fraction:
    """A number of blocks (`300`), or a share of them (`2%`) as a fraction. Raises UsageError E0231 for anything else."""
    found = re.fullmatch(r"([0-9]{1,12})(?:(\.[0-9]{1,12})?(%))?", str(text).strip())
    if found:
        value = Fraction(found[1] + (found[2] or ""))
        if found[3] and 0 < value <= 100:
            return value / 100
        if not found[3] and value > 0:
            return int(value)
    raise UsageError("E0231", f"'{show(text)}' is not a sample", hint="write 2% or a number of blocks: 300")


def parse_nonce(text: str) -> bytes:
    """The bytes of a nonce of 8 to 64 bytes in hexadecimal. Raises UsageError E0231 for anything else."""
    if re.fullmatch(r"(?:[0-9a-fA-F]{2}){8,64}", text) is None:
        raise UsageError(
            "E0231",
            f"'{show(text)}' is not a nonce",
            hint="leave it out for a fresh one; an earlier run printed its own",
        )
    return bytes.fromhex(text)


def draw(
    header: Mapping[str, TensorSpec], mixed: Sequence[str], size: int | Fraction, root: str, nonce: bytes
) -> Sample:
    """A draw without replacement of `size` blocks from all of `header`'s, and one more for each tensor of `mixed` it missed.

    Equal arguments give equal samples. `root` is the soup's content digest, hexadecimal.
    """
    numbers = _numbers(hashlib.sha256(bytes.fromhex(root) + nonce).digest())
    names = [name for name, spec in header.items() if spec.numel]
    counts = {name: block_count(header[name]) for name in names}
    total = sum(counts.values())
    wanted = min(total, size if isinstance(size, int) else math.ceil(total * size))
    chosen: dict[str, set[int]] = {}
    ends: list[int] = []
    for name in names:
        ends.append((ends[-1] if ends else 0) + counts[name])
    for index in _distinct(wanted, total, numbers):
        name, block = _place(index, names, ends, counts)
        chosen.setdefault(name, set()).add(block)
    for name in mixed:
        if name not in chosen and counts.get(name):
            chosen[name] = {next(numbers) % counts[name]}
    return Sample({name: tuple(sorted(chosen[name])) for name in names if name in chosen}, wanted, total)


def _numbers(seed: bytes) -> Iterator[int]:
    """Numbers of 128 bits: the halves of SHA-256(seed ‖ 0), SHA-256(seed ‖ 1), …"""
    counter = 0
    while True:
        digest = hashlib.sha256(seed + counter.to_bytes(8, "big")).digest()
        yield int.from_bytes(digest[:16], "big")
        yield int.from_bytes(digest[16:], "big")
        counter += 1


def _distinct(count: int, total: int, numbers: Iterator[int]) -> Iterator[int]:
    """`count` different numbers below `total`: Fisher and Yates, of whose table only what was moved is kept."""
    moved: dict[int, int] = {}
    for i in range(count):
        j = i + next(numbers) % (total - i)
        yield moved.get(j, j)
        moved[j] = moved.get(i, i)


def _place(
    index: int, names: Sequence[str], ends: Sequence[int], counts: Mapping[str, int]
) -> tuple[str, int]:
    import bisect

    at = bisect.bisect_right(ends, index)
    return names[at], index - (ends[at] - counts[names[at]])
