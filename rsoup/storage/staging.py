"""OUT.rsoup-<plan>.part: the soup while it is made. It becomes OUT in one step, or OUT stays as it was.

Every file has its final size from the start, so that a full disk is noticed before work begins. A journal
names the blocks that are on the disk (written after their data was made durable); a run that was killed
takes up from there when the same command is typed again. Another plan never does: its name is another.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from rsoup.errors import BusyError, TargetError, show
from rsoup.storage.rename import exchange, rename_new, sync_folder
from rsoup.storage.target import check_space, is_single_file, sidecar, target_error

JOURNAL = ".journal"
FLUSH_SECONDS = 4.0


class Staging:
    """A staging folder that this process holds; use as a context manager.

    Leaving it by an exception removes it, by KeyboardInterrupt (or any other BaseException) keeps it for
    the next run; after `commit` it is gone.
    """

    def __init__(self, out: str, plan_sha256: str, files: Mapping[str, tuple[bytes, int]]) -> None:
        """`files` maps names to (first bytes, size in bytes); nothing is touched before `__enter__`."""
        self.out = os.path.normpath(out)
        self.shown = show(out)
        self.parent = os.path.dirname(os.path.abspath(self.out))
        self.path = f"{os.path.abspath(self.out)}.rsoup-{plan_sha256[:12]}.part"
        self._plan = plan_sha256
        self._files = files
        self._fds: dict[str, int] = {}
        self._lock_fd = -1
        self._journal_fd = -1
        self._pending: list[str] = []
        self._pending_lock = threading.Lock()
        self._stop = threading.Event()
        self._flusher: threading.Thread | None = None
        self._flush_error: OSError | None = None
        self._made_parents: list[str] = []
        self._committed = False
        self.resumes = False

    def __enter__(self) -> Staging:
        try:
            self._make_parents()
            self._claim()
            self._open_files()
        except OSError as error:
            self._release(remove=self._lock_fd >= 0)
            raise target_error(error, self.shown) from error
        except BusyError:
            self._release(remove=False)
            raise
        except TargetError:
            self._release(remove=True)
            raise
        self._flusher = threading.Thread(target=self._flush_loop, name="rsoup-journal", daemon=True)
        self._flusher.start()
        return self

    def _make_parents(self) -> None:
        missing = []
        here = self.parent
        while not os.path.isdir(here):
            if os.path.lexists(here):
                raise NotADirectoryError(20, "a part of the path is a file", here)
            missing.append(here)
            here = os.path.dirname(here)
        for folder in reversed(missing):
            try:
                os.mkdir(folder)
            except FileExistsError:
                continue
            self._made_parents.append(folder)

    def _claim(self) -> None:
        """Hold the staging folder's lock, and be sure no other run works on the same output."""
        try:
            os.mkdir(self.path)
        except FileExistsError:
            pass
        self._lock_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if not _lock(self._lock_fd) or not _same_folder(self._lock_fd, self.path):
            os.close(self._lock_fd)
            self._lock_fd = -1
            raise _busy(self.shown)
        for other in glob.glob(f"{glob.escape(os.path.abspath(self.out))}.rsoup-*.part"):
            if other != self.path and is_held(other):
                raise _busy(self.shown)

    def _open_files(self) -> None:
        needed = sum(size for _, size in self._files.values())
        self.resumes = _can_resume(self.path, self._plan, self._files)
        if not self.resumes:
            for name in os.listdir(self.path):
                _remove(os.path.join(self.path, name))
            check_space(self.parent, needed, self.shown)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if self.resumes else os.O_EXCL)
        for name, (head, size) in self._files.items():
            fd = os.open(os.path.join(self.path, name), flags, 0o666)
            self._fds[name] = fd
            if not self.resumes:
                _reserve(fd, size)
                _write_all(fd, memoryview(head), 0)
        journal = os.path.join(self.path, JOURNAL)
        self._journal_fd = os.open(
            journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
        )
        if not self.resumes:
            _write_all(self._journal_fd, memoryview(f"{self._plan}\n".encode()), None)

    def finished(self) -> Iterator[dict[str, object]]:
        """The records of blocks that an earlier run of this plan has made durable, one at a time.

        A torn last line is cut off, so that what is noted from now on is readable.
        """
        if not self.resumes:
            return
        valid = 0
        with open(os.path.join(self.path, JOURNAL), "rb") as journal:
            for number, line in enumerate(journal):
                record = _record(line)
                if number > 0:
                    if record is None:
                        break
                    yield record
                valid += len(line)
        os.ftruncate(self._journal_fd, valid)

    def write(self, file: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of a weight file. Raises TargetError E0602, E0603 or E0604."""
        try:
            _write_all(self._fds[file], data, start)
        except OSError as error:
            raise target_error(error, self.shown) from error

    def note(self, record: Mapping[str, object]) -> None:
        """Remember that a block is written; it goes to the journal once its bytes are durable."""
        if self._flush_error is not None:
            raise target_error(self._flush_error, self.shown) from self._flush_error
        with self._pending_lock:
            self._pending.append(json.dumps(record, separators=(",", ":")))

    def _flush_loop(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            try:
                self._flush()
            except OSError as error:
                self._flush_error = error
                return

    def _flush(self) -> None:
        with self._pending_lock:
            records, self._pending = self._pending, []
        if not records:
            return
        for fd in self._fds.values():
            os.fdatasync(fd)
        _write_all(self._journal_fd, memoryview(("\n".join(records) + "\n").encode()), None)
        os.fdatasync(self._journal_fd)

    def _stop_flusher(self) -> None:
        self._stop.set()
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None

    def add_file(self, name: str, write: Callable[[int], object]) -> None:
        """Make a side file: `write` gets a file descriptor; the file is durable afterwards."""
        path = os.path.join(self.path, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                write(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise target_error(error, self.shown) from error

    def add_bytes(self, name: str, data: bytes) -> None:
        """Make a side file that holds `data`."""
        self.add_file(name, lambda fd: _write_all(fd, memoryview(data), None))

    def commit(self, *, overwrite: bool, last: Mapping[str, bytes]) -> None:
        """Make everything durable, write the files `last` (the manifest), and let the result appear at once.

        Raises BusyError E7501 if another run won the race, TargetError E060x if the disk does not obey.
        """
        self._stop_flusher()
        if self._flush_error is not None:
            raise target_error(self._flush_error, self.shown) from self._flush_error
        try:
            for fd in self._fds.values():
                os.fsync(fd)
            self._close_files()
            for name, data in last.items():
                self.add_bytes(name, data)
            os.unlink(os.path.join(self.path, JOURNAL))
            for folder, _, _ in os.walk(self.path):
                sync_folder(folder)
            self._put_in_place(overwrite)
            self._committed = True
            sync_folder(self.parent)
        except FileExistsError as error:
            raise BusyError(
                "E7501",
                "another run finished this output first",
                where=self.shown,
                hint="compare the two, or choose another -o",
            ) from error
        except OSError as error:
            raise target_error(error, self.shown) from error
        self._release(remove=True)

    def _put_in_place(self, overwrite: bool) -> None:
        replace = overwrite and os.path.lexists(self.out)
        if not is_single_file(self.out):
            (exchange if replace else rename_new)(self.path, self.out)
            return
        for name, target in ((os.path.basename(self.out), self.out), ("rsoup.json", sidecar(self.out))):
            (os.replace if replace else rename_new)(os.path.join(self.path, name), target)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed:
            self._release(remove=False)
            return
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._stop_flusher()
        if interrupted and self._flush_error is None:
            try:
                self._flush()
            except OSError:
                interrupted = True  # what the journal already names stays valid
        self._release(remove=not interrupted)

    def _close_files(self) -> None:
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)
        if self._journal_fd >= 0:
            os.close(self._journal_fd)
            self._journal_fd = -1

    def _release(self, *, remove: bool) -> None:
        self._close_files()
        if remove and os.path.lexists(self.path):
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
        if not self._committed:
            for folder in reversed(self._made_parents):
                try:
                    os.rmdir(folder)
                except OSError:
                    break


def _busy(shown: str) -> BusyError:
    return BusyError(
        "E7501",
        "another run is making this output",
        where=shown,
        hint="wait for it to end, or choose another -o",
    )


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # no locks here (some network file systems): the final rename decides
    return True


def leftovers(folder: str) -> list[str]:
    """The staging folders that lie in `folder`, of running merges and of interrupted ones."""
    return sorted(
        path for path in glob.glob(os.path.join(glob.escape(folder), "*.rsoup-*.part")) if os.path.isdir(path)
    )


def is_held(path: str) -> bool:
    """Whether a running merge holds this staging folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def _same_folder(fd: int, path: str) -> bool:
    try:
        here = os.stat(path)
    except OSError:
        return False
    return (here.st_dev, here.st_ino) == (os.fstat(fd).st_dev, os.fstat(fd).st_ino)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _reserve(fd: int, size: int) -> None:
    if size == 0:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (22, 95):  # EINVAL, EOPNOTSUPP: the file system cannot reserve
            raise
        os.ftruncate(fd, size)


def _write_all(fd: int, data: memoryview, start: int | None) -> None:
    done = 0
    while done < len(data):
        rest = data[done:]
        done += os.write(fd, rest) if start is None else os.pwrite(fd, rest, start + done)


def _can_resume(path: str, plan: str, files: Mapping[str, tuple[bytes, int]]) -> bool:
    """Whether an earlier run of the same plan left its journal and files of the right size and header."""
    try:
        with open(os.path.join(path, JOURNAL), "rb") as journal:
            if journal.readline() != f"{plan}\n".encode():
                return False
        for name, (head, size) in files.items():
            fd = os.open(os.path.join(path, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_size != size or os.pread(fd, len(head), 0) != head:
                    return False
            finally:
                os.close(fd)
    except OSError:
        return False
    return True


def _record(line: bytes) -> dict[str, object] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
