"""cook(plan, sources, sink): the block loop, on any number of threads, in memory that never grows."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from rsoup.kernel import RunRecord, measure_run, mix_run
from rsoup.plan import Block, Plan
from rsoup.scratch import Scratch
from rsoup.storage.protocols import Sink, Source
from rsoup.workers import StoppedError, alone, default_threads, each, no_memory, torch_threads

_AHEAD = 8


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """What was learnt while a block was cooked, one record per run; with it a block need not be cooked again."""

    index: int
    runs: tuple[RunRecord, ...]


OnBlock = Callable[[Block, BlockRecord], None]


def cook(
    plan: Plan,
    sources: Sequence[Source],
    sink: Sink,
    *,
    on_block: OnBlock,
    done: Collection[int] = (),
    threads: int | None = None,
) -> None:
    """Write every block of `plan` that is not in `done` to `sink`; the bytes depend on nothing but plan and sources.

    `on_block` is called once per block, under a lock, after the block's bytes were written. The first
    error in any thread stops all of them and is raised; KeyboardInterrupt does the same.
    """

    def work(block: Block, sources: Sequence[Source], scratch: Scratch) -> BlockRecord:
        return BlockRecord(
            block.index, tuple(mix_run(plan, run, sources, sink, scratch) for run in block.runs)
        )

    _run(
        plan, [block for block in plan.blocks() if block.index not in done], sources, work, on_block, threads
    )


def measure(plan: Plan, sources: Sequence[Source], *, on_block: OnBlock, threads: int | None = None) -> None:
    """Take the products of the deltas of every mixed tensor, for methods that need them before they mix."""

    def work(block: Block, sources: Sequence[Source], scratch: Scratch) -> BlockRecord:
        return BlockRecord(block.index, tuple(measure_run(plan, run, sources, scratch) for run in block.runs))

    _run(plan, list(plan.blocks()), sources, work, on_block, threads)


def _run(
    plan: Plan,
    blocks: Sequence[Block],
    sources: Sequence[Source],
    work: Callable[[Block, Sequence[Source], Scratch], BlockRecord],
    on_block: OnBlock,
    threads: int | None,
) -> None:
    def worker(stop: threading.Event) -> Callable[[tuple[int, Block]], BlockRecord]:
        alone()
        scratch = _scratch(plan, len(sources))
        watched = [cast("Source", _Watched(source, stop)) for source in sources]

        def cooked(numbered: tuple[int, Block]) -> BlockRecord:
            ahead = numbered[0] + _AHEAD * count
            _prefetch(plan, blocks[ahead : ahead + 1], sources)
            return work(numbered[1], watched, scratch)

        return cooked

    count = max(1, min(threads or default_threads(), len(blocks)))
    with torch_threads():
        each(enumerate(blocks), worker, lambda numbered, record: on_block(numbered[1], record), threads=count)


class _Watched:
    """A Source that ends its reader's work between two reads, not only between two blocks: a disk may be slow."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self.header, self.name = source.header, source.name
        self._read, self._stop = source.read, stop

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on, unless all stop."""
        if self._stop.is_set():
            raise StoppedError
        self._read(tensor, start, buffer)


def _scratch(plan: Plan, checkpoints: int) -> Scratch:
    """One thread's buffers, all of them made now. Raises TargetError E0608 where there is no memory for them."""
    try:
        scratch = Scratch(checkpoints)
        if plan.base is not None:
            scratch.rows()
    except (RuntimeError, MemoryError) as error:  # torch says RuntimeError
        raise no_memory("there is not enough memory for a thread's buffers") from error
    return scratch


def _prefetch(plan: Plan, blocks: Sequence[Block], sources: Sequence[Source]) -> None:
    for run, source in _reads(plan, blocks, sources):
        tensor = plan.tensors[run[0]]
        size = source.header[tensor.name].dtype.bits
        with contextlib.suppress(OSError):  # only advice
            source.prefetch(tensor.name, run[1] * size // 8, (run[2] - run[1]) * size // 8)


def _reads(
    plan: Plan, blocks: Sequence[Block], sources: Sequence[Source]
) -> Iterator[tuple[tuple[int, int, int], Source]]:
    for block in blocks:
        if len(block.runs) > 8:
            continue
        for run in block.runs:
            for reader in plan.readers(plan.tensors[run.tensor]):
                yield (run.tensor, run.start, run.stop), sources[reader]
