"""Source and Sink: all that the rest of rsoup knows of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class FileLayout:
    """One weight file of a checkpoint: its name, and its tensors in the order of their bytes."""

    name: str
    tensors: tuple[str, ...]


class Source(Protocol):
    """A checkpoint that is open for reading. Any number of threads may read at the same time.

    `header` is complete and checked before the first read. `files` says how the tensors are spread,
    `side_files` what else lies there (never weights), `skipped_files` what lies there and is left alone.
    `notes` are things a careful reader should know. `identity` changes when the bytes may have changed.
    """

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def header(self) -> Header:
        """Every tensor's dtype and shape."""

    @property
    def files(self) -> Sequence[FileLayout]:
        """The weight files, in their order."""

    @property
    def side_files(self) -> Sequence[str]:
        """Relative names of everything that is not weights and may be copied."""

    @property
    def skipped_files(self) -> Sequence[str]:
        """Relative names of what is neither weights of this checkpoint nor copied along."""

    @property
    def notes(self) -> Sequence[str]:
        """Findings that refuse nothing."""

    @property
    def identity(self) -> str:
        """A text that differs when the weights may have changed since another opening."""

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `tensor` from byte `start` on; all of it or an error.

        Raises KeyError for no such tensor, ValueError for bytes outside it or a source that is closed.
        """

    def place(self, tensor: str) -> tuple[int, int] | None:
        """(open file, byte) where the bytes of `tensor` begin and lie as they are read; None where they do not.

        The file is open until the source is closed. Raises KeyError, ValueError as `read` does.
        """

    def prefetch(self, tensor: str, start: int, nbytes: int) -> None:
        """Say that these bytes will be read soon; may do nothing."""

    def side_file(self, name: str, limit: int) -> bytes | None:
        """The contents of a side file of at most `limit` bytes; None where there is none."""

    def side_file_chunks(self, name: str) -> Iterator[bytes]:
        """The contents of a side file of any size, piece by piece."""

    def check_sums(self) -> None:
        """Compare the checksums the files hold of themselves, if they do; RefusedFileError E0816 where one is wrong."""

    def check_unchanged(self) -> None:
        """Raise RefusedFileError E0804 if a weight file is not what it was when it was opened."""

    def close(self) -> None:
        """Let go of every file; reading afterwards is an error, closing again is none."""


class Sink(Protocol):
    """Where a soup's bytes go. Blocks arrive in any order, from any number of threads."""

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Keep `data` as the bytes of `tensor` from byte `start` on; `data` may be reused afterwards."""
