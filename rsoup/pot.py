"""cook(plan, sources, sink): the block loop, on any number of threads, in memory that never grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from rsoup.kernel import RunRecord, Scratch, measure_run, mix_run
from rsoup.plan import Block, Plan
from rsoup.storage.protocols import Sink, Source

MAX_THREADS = 16
_AHEAD = 8


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """What was learnt while a block was cooked, one record per run; with it a block need not be cooked again."""

    index: int
    runs: tuple[RunRecord, ...]


OnBlock = Callable[[Block, BlockRecord], None]


def default_threads() -> int:
    """One thread per processor this process may use, at most 16: beyond that the disk is the limit."""
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MAX_THREADS
    )


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

    def work(block: Block, scratch: Scratch) -> BlockRecord:
        return BlockRecord(
            block.index, tuple(mix_run(plan, run, sources, sink, scratch) for run in block.runs)
        )

    _run(
        plan, [block for block in plan.blocks() if block.index not in done], sources, work, on_block, threads
    )


def measure(plan: Plan, sources: Sequence[Source], *, on_block: OnBlock, threads: int | None = None) -> None:
    """Take the products of the deltas of every mixed tensor, for methods that need them before they mix."""

    def work(block: Block, scratch: Scratch) -> BlockRecord:
        return BlockRecord(block.index, tuple(measure_run(plan, run, sources, scratch) for run in block.runs))

    _run(plan, list(plan.blocks()), sources, work, on_block, threads)


def _run(
    plan: Plan,
    blocks: Sequence[Block],
    sources: Sequence[Source],
    work: Callable[[Block, Scratch], BlockRecord],
    on_block: OnBlock,
    threads: int | None,
) -> None:
    import torch

    count = max(1, min(threads or default_threads(), len(blocks)))
    position = iter(enumerate(blocks))
    lock = threading.Lock()
    stop = threading.Event()
    errors: list[BaseException] = []

    def loop() -> None:
        torch.set_num_threads(1)
        scratch = Scratch(len(sources))
        while not stop.is_set():
            with lock:
                number, block = next(position, (None, None))
            if block is None or number is None:
                return
            _prefetch(plan, blocks[number + _AHEAD * count : number + _AHEAD * count + 1], sources)
            try:
                record = work(block, scratch)
                with lock:
                    on_block(block, record)
            except BaseException as error:  # noqa: BLE001 - carried to the caller's thread, raised there
                errors.append(error)
                stop.set()

    before = torch.get_num_threads()
    workers = [threading.Thread(target=loop, name=f"rsoup-{i}", daemon=True) for i in range(count)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(timeout=0.2)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        torch.set_num_threads(before)
    if errors:
        raise errors[0]


def _prefetch(plan: Plan, blocks: Sequence[Block], sources: Sequence[Source]) -> None:
    for run, source in _reads(plan, blocks, sources):
        tensor = plan.tensors[run[0]]
        size = source.header[tensor.name].dtype.bits
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
