"""OUT.rsoup-<plan>.part: the soup while it is made. It becomes OUT in one step, or OUT stays as it was.

Every file has its final size from the start, so that a full disk is noticed before work begins. A journal
names the blocks that are on the disk (written after their data was made durable); a run that was killed
takes up from there when the same command is typed again. Another plan never does: its name is another.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType

from rsoup.errors import BusyError, show
from rsoup.storage import journal, parts, plain
from rsoup.storage.journal import Journal
from rsoup.storage.plain import open_plain, write_all
from rsoup.storage.rename import exchange, exists, rename_new, sync_folder
from rsoup.storage.target import check_space, check_target, is_single_file, sidecar, target_error

Pieces = Sequence[tuple[int, bytes]]
"""What is known of a file before its tensors are: bytes, and where they lie; the first ones first."""

_PASSING = ("E7510",)  # errors after which the same command goes on


class Staging:
    """A staging folder that this process holds; use as a context manager.

    Leaving it by an exception removes it, by KeyboardInterrupt (or any other BaseException, or a network that
    fails) keeps it for the next run; after `commit` it is gone. Everything happens relative to the output's parent as it was
    opened at the start: a parent that is moved or deleted meanwhile is not made again.
    """

    def __init__(self, out: str, plan_sha256: str, files: Mapping[str, tuple[Pieces, int]]) -> None:
        """`files` maps names to (what is known of their bytes, size); nothing is touched before `__enter__`."""
        self.out = out.rstrip("/")
        self.shown = show(out)
        self._single = is_single_file(out)
        self._parent_path, self._name = os.path.split(self.out)
        self._parent_path = self._parent_path or "."
        self._part = parts.part_name(self._name, plan_sha256)
        self.path = os.path.join(self._parent_path, self._part)
        self._plan = plan_sha256
        self._layout = files
        self._files: dict[str, int] = {}
        self._parent = self._folder = self._replaced = -1
        self._journal: Journal | None = None
        self._made_parents: list[str] = []
        self._mark: os.stat_result | None = None
        self._committed = False
        self.resumes = False

    def __enter__(self) -> Staging:
        try:
            self._make_parents()
            self._parent = os.open(self._parent_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._claim()
            self._open_files()
        except BaseException as error:
            self._release(remove=not self.resumes)
            if isinstance(error, OSError):
                raise target_error(error, self.shown) from error
            raise
        return self

    def _make_parents(self) -> None:
        missing = []
        here = self._parent_path
        while not os.path.isdir(here):
            if os.path.lexists(here):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
            missing.append(here)
            here = os.path.dirname(here) or "."
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder)
                self._made_parents.append(folder)

    def _claim(self) -> None:
        """Hold the staging folder's lock, and be sure no other run works on the same output."""
        with parts.alone(self._parent):
            made = True
            try:
                os.mkdir(self._part, dir_fd=self._parent)
            except FileExistsError:
                made = False
            try:
                folder = parts.open_folder(self._part, self._parent)
            except FileNotFoundError:
                raise parts.busy(self.shown) from None  # it has just become the result of another run
            try:
                if not made and os.fstat(folder).st_uid != os.geteuid():
                    raise parts.foreign(self._part)
                others = [name for name in parts.leftovers(self._parent, self._name) if name != self._part]
                if (
                    not parts.lock(folder)
                    or not parts.is_same(self._part, folder, self._parent)
                    or any(parts.is_held(other, self._parent) for other in others)
                ):
                    raise parts.busy(self.shown)
            except BaseException:
                os.close(folder)
                if made:
                    with contextlib.suppress(OSError):
                        os.rmdir(self._part, dir_fd=self._parent)
                raise
            self._folder = folder

    def _open_files(self) -> None:
        self.resumes = journal.belongs(self._folder, self._plan) and all(
            plain.is_as_left(self._folder, name, pieces[0][1], size)
            for name, (pieces, size) in self._layout.items()
        )
        kept = {journal.NAME, *(name.partition("/")[0] for name in self._layout)} if self.resumes else set()
        for name in set(os.listdir(self._folder)) - kept:
            plain.remove(os.path.join(self.path, name))
        if not self.resumes:
            check_space(self._parent_path, sum(size for _, size in self._layout.values()), self.shown)
        for name, (pieces, size) in self._layout.items():
            plain.make_folders(name, self._folder)
            fd = open_plain(name, os.O_RDWR | (0 if self.resumes else os.O_CREAT | os.O_EXCL), self._folder)
            self._files[name] = fd
            if not self.resumes:
                plain.reserve(fd, size)
                for start, piece in pieces:
                    write_all(fd, memoryview(piece), start)
        single = self._files[self._name] if self._single else self._folder
        self._mark = os.fstat(single)
        self._journal = Journal(self._folder, self._plan, self._files.values(), resumes=self.resumes)

    def finished(self) -> Iterator[dict[str, object]]:
        """The records of blocks that an earlier run of this plan has made durable, one at a time."""
        if self.resumes and self._journal is not None:
            yield from self._journal.records()

    def write(self, file: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of a weight file. Raises TargetError E0602, E0603 or E0604."""
        try:
            write_all(self._files[file], data, start)
            plain.begin_writeback(self._files[file], start, len(data))
        except OSError as error:
            raise target_error(error, self.shown) from error

    def note(self, record: Mapping[str, object]) -> None:
        """Remember that a block is written; it goes to the journal once its bytes are durable."""
        self._check_journal().note(record)

    def _check_journal(self) -> Journal:
        assert self._journal is not None
        if self._journal.error is not None:
            raise target_error(self._journal.error, self.shown) from self._journal.error
        return self._journal

    def finish(self, name: str, finish: Callable[[int], object]) -> str:
        """Let `finish` complete a weight file whose tensors are all there (it gets a descriptor); its SHA-256 then."""
        try:
            finish(self._files[name])
            return plain.sha256(self._files[name])
        except OSError as error:
            raise target_error(error, self.shown) from error

    def add_file(self, name: str, chunks: Iterable[bytes]) -> tuple[int, str]:
        """Make a side file of `chunks`, durable afterwards; its size in bytes and SHA-256, hexadecimal."""
        digest, size = hashlib.sha256(), 0
        try:
            plain.make_folders(name, self._folder)
            fd = open_plain(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, self._folder)
            try:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    write_all(fd, memoryview(chunk))
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise target_error(error, self.shown) from error
        return size, digest.hexdigest()

    def commit(self, *, overwrite: bool, last: Mapping[str, bytes]) -> None:
        """Make everything durable, write the files `last` (the manifest), and let the result appear at once.

        Raises BusyError E7501 if another run won the race, TargetError E060x if the disk does not obey or
        something else came to lie in the output's place.
        """
        self._check_journal().stop()
        self._check_journal()
        try:
            for fd in self._files.values():
                os.fsync(fd)
            self._close_files()
            for name, data in last.items():
                self.add_file(name, [data])
            for *_, fd in os.fwalk(".", dir_fd=self._folder):
                sync_folder(fd)
            if overwrite:
                check_target(self.out, [], overwrite=True)
            os.unlink(journal.NAME, dir_fd=self._folder)
            sync_folder(self._folder)
            self._put_in_place(overwrite)
        except FileExistsError as error:
            raise BusyError(
                "E7501",
                "another run finished this output first",
                where=self.shown,
                hint="compare the two, or choose another -o",
            ) from error
        except OSError as error:
            raise target_error(error, self.shown) from error
        self._committed = True
        self._release(remove=True)

    def _moves(self) -> list[tuple[str, str]]:
        """What becomes what, by names in the parent folder."""
        if not self._single:
            return [(self._part, self._name)]
        staged = [os.path.join(self._part, self._name), os.path.join(self._part, "rsoup.json")]
        return list(zip(staged, [self._name, sidecar(self._name)], strict=True))

    def _put_in_place(self, overwrite: bool) -> None:
        """Let the result take its name, durably; if that fails, everything is as it was."""
        done = []
        try:
            for made, place in self._moves():
                swap = overwrite and exists(place, dir_fd=self._parent)
                if swap and not self._single:  # nobody may take the old folder for a staging folder
                    self._replaced = parts.open_folder(place, self._parent)
                    parts.lock(self._replaced)
                (exchange if swap else rename_new)(made, place, dir_fd=self._parent)
                done.append((made, place, exchange if swap else rename_new))
            sync_folder(self._parent)
            for folder in self._made_parents:
                sync_folder(os.path.dirname(folder) or ".")
        except OSError:
            for made, place, back in reversed(done):
                with contextlib.suppress(OSError):
                    back(place, made, dir_fd=self._parent)
            raise

    def _is_in_place(self) -> bool:
        """Whether the result has its name already: a signal may have come just then."""
        if self._committed or self._mark is None or self._parent < 0:
            return self._committed
        try:
            here = os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(here, self._mark)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_in_place():
            if not self._committed and self._single:
                with contextlib.suppress(OSError):
                    made, place = self._moves()[1]
                    os.replace(made, place, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            self._committed = True
            self._release(remove=True)
            return
        interrupted = isinstance(value, BaseException) and (
            not isinstance(value, Exception) or getattr(value, "code", None) in _PASSING
        )
        if interrupted and self._journal is not None:
            self._journal.stop()
            self._journal.flush()  # what it already names stays valid if this fails
        self._release(remove=not (interrupted and journal.is_there(self._folder)))

    def _close_files(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        files, self._files = self._files, {}
        with contextlib.ExitStack() as closing:  # every one of them, whatever a close says
            for fd in files.values():
                closing.callback(os.close, fd)

    def _release(self, *, remove: bool) -> None:
        """Let go of everything; idempotent. `remove` deletes what is under the staging folder's name, if ours."""
        with contextlib.suppress(OSError):
            self._close_files()
        ours = [fd for fd in (self._folder, self._replaced) if fd >= 0]
        if remove and any(parts.is_same(self._part, fd, self._parent) for fd in ours):
            shutil.rmtree(self.path, ignore_errors=True)
        for fd in (self._folder, self._replaced, self._parent):
            if fd >= 0:
                os.close(fd)
        self._folder = self._replaced = self._parent = -1
        if not self._committed:
            for folder in reversed(self._made_parents):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
