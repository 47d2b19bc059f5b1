"""What the digests cost: BLAKE3 of what is written, XXH3-128 of what is read, on one core.

    python benchmarks/digest_cost.py

The digests cannot be switched off, so they are measured alone: 1 MiB chunks, as a merge digests them, out of
a buffer the size of a merge's slices (in the processor's cache) and out of 256 MiB (in memory).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from typing import TYPE_CHECKING

from blake3 import blake3
from side_by_side import machine, spread, table
from xxhash import xxh3_128

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 1 << 20


def speeds(digest: Callable[[memoryview], object], data: memoryview, rounds: int) -> list[float]:
    """GB/s of `digest` over the 1 MiB chunks of `data`, about 1 GiB in each round."""
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    repeats = max(1, (1 << 30) // len(data))
    found = []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(repeats):
            for chunk in chunks:
                digest(chunk)
        found.append(repeats * len(data) / (time.perf_counter() - begun) / 1e9)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"{machine()}\n")
    small, large = memoryview(os.urandom(CHUNK)), memoryview(os.urandom(1 << 28))
    kinds: dict[str, Callable[[memoryview], object]] = {
        "BLAKE3 (outputs)": lambda chunk: blake3(chunk).digest(),
        "XXH3-128 (inputs)": lambda chunk: xxh3_128(chunk).digest(),
        "SHA-256, for comparison": lambda chunk: hashlib.sha256(chunk).digest(),
    }
    rows = []
    for name, digest in kinds.items():
        cached, memory = (speeds(digest, data, args.rounds) for data in (small, large))
        rows.append((name, spread(cached), spread(memory), f"{1 / max(cached):.2f}"))
    table(("digest", "in cache, GB/s", "in memory, GB/s", "core seconds per GB"), rows)


if __name__ == "__main__":
    main()
