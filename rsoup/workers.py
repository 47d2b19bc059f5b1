"""each(items, …): one loop over independent pieces of work, on any number of threads."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Final, TypeVar

from rsoup.errors import TargetError

MAX_THREADS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")


class StoppedError(Exception):
    """What a worker may raise when it finds that all are to stop: it ends, and nothing is reported."""


class Stop(threading.Event):
    """An Event that compiled code can see, too: `byte` is 1 once it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.byte: Final = bytearray(1)

    def set(self) -> None:
        """From now on all stop."""
        self.byte[0] = 1
        super().set()


_here: Final = threading.local()
_never: Final = bytearray(1)


def stopping() -> bool:
    """Whether the loop that this thread works for stops: then StoppedError ends what takes long, a wait for a network."""
    return bool(stop_byte()[0])


def stop_byte() -> bytearray:
    """One byte, which becomes 1 when the loop that this thread works for stops."""
    stop: Stop | None = getattr(_here, "stop", None)
    return _never if stop is None else stop.byte


def go_on() -> None:
    """Raise StoppedError where the loop that this thread works for stops: between two reads, for a disk may be slow."""
    if stopping():
        raise StoppedError


def default_threads() -> int:
    """One thread per processor this process may use, at most 16: beyond that the disk is the limit."""
    return min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MAX_THREADS
    )


def each(
    items: Iterable[Item],
    worker: Callable[[threading.Event], Callable[[Item], Result]],
    on_result: Callable[[Item, Result], None],
    *,
    threads: int | None = None,
) -> None:
    """Call `worker(stop)` once per thread, and what it returns for every item; results come one at a time.

    `on_result` is called under a lock, in any order. The first error in any thread stops all of them (`stop` is
    set) and is raised; a signal does the same. Raises TargetError E0608 where no thread can be started.
    """
    source = iter(items)
    lock = threading.Lock()
    stop = Stop()
    errors: list[BaseException] = []
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def loop() -> None:
        _here.stop = stop
        try:
            work = worker(stop)
            while not stop.is_set():
                with lock:
                    found = next(((item,) for item in source), None)
                if found is None:
                    return
                result = work(found[0])
                with lock:
                    on_result(found[0], result)
        except StoppedError:
            return
        except BaseException as error:
            errors.append(error)
            stop.set()
        finally:
            ended.put(None)

    count = max(1, threads or default_threads())
    started: list[threading.Thread] = []
    try:
        for number in range(count):
            thread = threading.Thread(target=loop, name=f"rsoup-{number}", daemon=True)
            started.append(thread)  # before it runs: a signal may come in the middle of its start
            try:
                thread.start()
            except RuntimeError as error:  # the system gives no more threads: fewer do as well
                started.pop()
                if not started:
                    raise no_memory("the system lets this process start no thread") from error
                break
        for _ in started:
            ended.get()  # not join: a signal in the middle of it makes Python take a live thread for a dead one
    finally:
        stop.set()
        for thread in started:
            _join(thread)
    if errors:
        raise errors[0]


def _join(thread: threading.Thread) -> None:
    """Wait for a thread that was started, or whose start a signal interrupted: none may outlive the loop."""
    for _ in range(400):
        try:
            thread.join()
        except RuntimeError:  # it is not running yet
            time.sleep(0.005)
        else:
            return


def no_memory(message: str) -> TargetError:
    """The error of a machine that has too little for another thread."""
    return TargetError("E0608", message, hint="fewer threads need less: --threads 1")


def alone() -> None:
    """Keep torch, where it is loaded, from starting threads of its own: there is one of ours per processor already."""
    if (set_threads := getattr(sys.modules.get("torch"), "set_num_threads", None)) is not None:
        set_threads(1)


@contextmanager
def torch_threads(*, load: bool = False) -> Iterator[None]:
    """Put torch's number of threads back afterwards, if it is loaded: `alone` sets it for the whole process.

    `load` is for work that torch does: it is imported here, before any thread does.
    """
    if load:
        import_module("torch")
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
