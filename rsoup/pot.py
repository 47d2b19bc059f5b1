"""cook(plan, sources, sink): the block loop, on any number of threads, in memory that never grows."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from rsoup.errors import TargetError
from rsoup.kernel import RunRecord, measure_run, mix_run
from rsoup.plan import Block, Plan
from rsoup.scratch import Scratch
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
    import torch

    count = max(1, min(threads or default_threads(), len(blocks)))
    position = iter(enumerate(blocks))
    lock = threading.Lock()
    stop = threading.Event()
    errors: list[BaseException] = []
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def loop() -> None:
        try:
            torch.set_num_threads(1)
            scratch = _scratch(plan, len(sources))
            watched = [cast("Source", _Watched(source, stop)) for source in sources]
            while not stop.is_set():
                with lock:
                    number, block = next(position, (None, None))
                if block is None or number is None:
                    return
                _prefetch(plan, blocks[number + _AHEAD * count : number + _AHEAD * count + 1], sources)
                record = work(block, watched, scratch)
                with lock:
                    on_block(block, record)
        except _StopReadingError:
            return
        except BaseException as error:
            errors.append(error)
            stop.set()
        finally:
            ended.put(None)

    before = torch.get_num_threads()
    workers = [threading.Thread(target=loop, name=f"rsoup-{i}", daemon=True) for i in range(count)]
    started: list[threading.Thread] = []
    try:
        for worker in workers:
            started.append(worker)  # before it runs: a signal may come in the middle of its start
            try:
                worker.start()
            except RuntimeError as error:  # the system gives no more threads: fewer do as well
                started.pop()
                if not started:
                    raise _no_memory("the system lets this process start no thread") from error
                break
        for _ in started:
            ended.get()  # not join: a signal in the middle of it makes Python take a live thread for a dead one
    finally:
        stop.set()
        for worker in started:
            _join(worker)
        torch.set_num_threads(before)
    if errors:
        raise errors[0]
    assert next(position, None) is None, "a block was left out"


def _join(worker: threading.Thread) -> None:
    """Wait for a thread that was started, or whose start a signal interrupted: none may outlive the loop."""
    for _ in range(400):
        try:
            worker.join()
        except RuntimeError:  # it is not running yet
            time.sleep(0.005)
        else:
            return


class _StopReadingError(Exception):
    """Another thread failed, or a signal came."""


class _Watched:
    """A Source that ends its reader's work between two reads, not only between two blocks: a disk may be slow."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self.header, self.name = source.header, source.name
        self._read, self._stop = source.read, stop

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on, unless all stop."""
        if self._stop.is_set():
            raise _StopReadingError
        self._read(tensor, start, buffer)


def _scratch(plan: Plan, checkpoints: int) -> Scratch:
    """One thread's buffers, all of them made now. Raises TargetError E0608 where there is no memory for them."""
    try:
        scratch = Scratch(checkpoints)
        if plan.base is not None:
            scratch.rows()
    except (RuntimeError, MemoryError) as error:  # torch says RuntimeError
        raise _no_memory("there is not enough memory for a thread's buffers") from error
    return scratch


def _no_memory(message: str) -> TargetError:
    return TargetError("E0608", message, hint="fewer threads need less: --threads 1")


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
