"""What every source and every sink promises: inherit from a contract, say how to make one, and be tested.

class TestMySource(SourceContract):
    def open(self, name: str, tensors: Tensors) -> Source: ...
"""

from __future__ import annotations

import os
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from checkpoints import Tensors, related, tensor_bytes

from rsoup.errors import RefusedFileError
from rsoup.storage.protocols import Sink, Source
from rsoup.tensors import DTYPES, Header, TensorSpec

SIDE_FILES = {"tokenizer.json": b'{"version": "1.0"}', "assets/note.txt": b"n" * 3000}
DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}


def header_of(tensors: Tensors) -> dict[str, TensorSpec]:
    """The specs of tensors in memory."""
    return {
        name: TensorSpec(DTYPES[DTYPE_NAMES[tensor.dtype]], tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def piece(source: Source, tensor: str, start: int, nbytes: int) -> bytes:
    """Bytes of a tensor, read into a buffer that held something else."""
    buffer = bytearray(b"\xaa" * nbytes)
    source.read(tensor, start, memoryview(buffer))
    return bytes(buffer)


class Contract(ABC):
    """A contract's tests find an empty folder at `self.root`."""

    root: Path

    @pytest.fixture(autouse=True)
    def _empty_folder(self, tmp_path: Path) -> None:
        self.root = tmp_path


class SourceContract(Contract):
    """A source gives back any byte range of any tensor, to many threads at once, or raises.

    It knows every tensor before the first read; no tensor is in two files and none in no file; it says
    which side files there are and gives them whole or not at all; after closing it reads nothing.
    """

    side_files: Mapping[str, bytes] = SIDE_FILES

    @abstractmethod
    def open(self, name: str, tensors: Tensors) -> Source:
        """A source over `tensors` and the side files, with whatever it needs on disk at `self.root / name`."""

    @pytest.fixture
    def tensors(self) -> Tensors:
        """What the source holds."""
        return related(1, seed=7).tuned[0]

    @pytest.fixture
    def source(self, tensors: Tensors) -> Source:
        """The source under test."""
        return self.open("source", tensors)

    def test_header(self, source: Source, tensors: Tensors) -> None:
        """The header holds every tensor's dtype and shape, and nothing else."""
        assert header_of(tensors) == dict(source.header)

    def test_files(self, source: Source) -> None:
        """The files together hold every tensor of the header once, in the header's order."""
        placed = [tensor for layout in source.files for tensor in layout.tensors]

        assert list(source.header) == placed
        assert len({layout.name for layout in source.files}) == len(source.files)

    def test_reads_whole_tensors(self, source: Source, tensors: Tensors) -> None:
        """Reading a tensor from 0 to its end gives its bytes; none for a tensor without elements."""
        for name, tensor in tensors.items():
            expected = tensor_bytes(tensor)

            assert expected == piece(source, name, 0, len(expected))

    def test_reads_any_range_from_any_thread(self, source: Source, tensors: Tensors) -> None:
        """Eight threads that read odd ranges of all tensors at once get the bytes that lie there."""
        expected = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}

        def right(seed: int) -> bool:
            dice = random.Random(seed)
            name = dice.choice(sorted(expected))
            start = dice.randint(0, len(expected[name]))
            stop = dice.randint(start, len(expected[name]))
            source.prefetch(name, start, stop - start)
            return piece(source, name, start, stop - start) == expected[name][start:stop]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(right, range(400)))

    @pytest.mark.parametrize(("start", "more"), [(0, 1), (1, 0), (-1, 0), (-1, 1), (1 << 50, 0)])
    def test_refuses_what_lies_outside(self, source: Source, start: int, more: int) -> None:
        """A range that begins before a tensor or ends after it is an error, never a neighbour's bytes."""
        for name, spec in source.header.items():
            buffer = memoryview(bytearray(spec.nbytes + more))
            if start == -1 and spec.nbytes + more == 0:
                continue

            with pytest.raises(ValueError, match="are not all in"):
                source.read(name, start, buffer)

    def test_knows_no_other_tensor(self, source: Source) -> None:
        """A tensor that is not in the header cannot be read."""
        with pytest.raises(KeyError):
            source.read("no such tensor", 0, memoryview(bytearray(1)))

    def test_side_files(self, source: Source) -> None:
        """Side files come whole, by read and by copy; what is not there is None; beyond a limit is refused."""
        assert set(self.side_files) == set(source.side_files)
        for name, data in self.side_files.items():
            assert data == source.side_file(name, len(data))
            assert data == b"".join(source.side_file_chunks(name))
            with pytest.raises(RefusedFileError) as caught:
                source.side_file(name, len(data) - 1)
            assert caught.value.code == "E0805"
        assert source.side_file("no such file", 10) is None
        assert source.side_file("../source", 10) is None

    def test_has_a_name_and_an_identity(self, source: Source, tensors: Tensors) -> None:
        """It has a name for messages, and another checkpoint has another identity."""
        other = self.open("other", tensors)

        assert source.name
        assert source.identity == source.identity
        assert source.identity != other.identity
        other.close()

    def test_is_unchanged_while_nobody_writes(self, source: Source) -> None:
        """What nobody touched has not changed, and gives no cause for notes."""
        source.check_unchanged()

        assert not source.notes

    def test_reads_nothing_after_closing(self, source: Source) -> None:
        """A closed source refuses to read, even once the system gave its file numbers away; twice is fine."""
        name = next(name for name, spec in source.header.items() if spec.nbytes)
        source.close()
        numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
        try:
            with pytest.raises(ValueError, match="closed"):
                source.read(name, 0, memoryview(bytearray(1)))
            source.close()
            for number in numbers:
                os.fstat(number)
        finally:
            for number in numbers:
                os.close(number)


class FileSourceContract(SourceContract):
    """A source over files also notices that somebody changed one of them, while it reads and before."""

    trailer = 0  # bytes after the last tensor's

    @abstractmethod
    def weight_files(self) -> list[Path]:
        """The files `open("source", …)` made that hold weights."""

    @abstractmethod
    def open_again(self) -> Source:
        """A new source over the same files."""

    @pytest.mark.fault("I2")
    def test_notices_a_change(self, source: Source) -> None:
        """A weight file written to in place, with the same size, is refused by its name when the work ends."""
        for path in self.weight_files():
            before = path.stat()
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))

            with pytest.raises(RefusedFileError, match="changed while it was read") as caught:
                source.check_unchanged()
            assert (caught.value.code, caught.value.exit_code) == ("E0804", 8)
            assert path.name in str(caught.value.where)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @pytest.mark.fault("I1")
    def test_notices_a_cut(self, source: Source) -> None:
        """A file cut short after it was opened raises a refusal: no crash, no zeros."""
        last = next(
            tensor
            for layout in reversed(source.files)
            for tensor in reversed(layout.tensors)
            if source.header[tensor].nbytes
        )
        path = self.weight_files()[-1]
        os.truncate(path, path.stat().st_size - 1 - self.trailer)

        with pytest.raises(RefusedFileError) as caught:
            piece(source, last, 0, source.header[last].nbytes)
        assert caught.value.code == "E0804"

    def test_identity_follows_the_files(self, source: Source) -> None:
        """The identity of what is opened again differs once any weight file was rewritten, and only then."""
        before = source.identity
        assert before == self.open_again().identity
        for path in self.weight_files():
            old = path.stat()
            path.write_bytes(path.read_bytes())
            os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns + 1_000_000))

            after = self.open_again().identity
            assert before != after
            before = after


class SinkContract(Contract):
    """A sink keeps what is written where it belongs, whatever the order, from any number of threads."""

    @abstractmethod
    def make(self, header: Header) -> Sink:
        """A sink for the tensors of `header`, with whatever it needs on disk below `self.root`."""

    @abstractmethod
    def contents(self, sink: Sink) -> dict[str, bytes]:
        """Every tensor's bytes once all are written."""

    def test_writes_in_any_order_from_threads(self) -> None:
        """Pieces of all tensors, shuffled and written by eight threads, come back as the tensors."""
        tensors = related(1, seed=3).tuned[0]
        sink = self.make(header_of(tensors))
        expected = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}
        pieces = [
            (name, start, data[start : start + 4099])
            for name, data in expected.items()
            for start in range(0, len(data), 4099)
        ]
        random.Random(5).shuffle(pieces)

        def write(part: tuple[str, int, bytes]) -> None:
            buffer = bytearray(part[2])
            sink.write(part[0], part[1], memoryview(buffer))
            buffer[:] = b"\xaa" * len(buffer)  # a sink keeps the bytes, not the buffer

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, pieces))

        assert expected == self.contents(sink)
