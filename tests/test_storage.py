"""Every source and sink under its contract, and what only one of them does."""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest
import torch
from checkpoints import Tensors, read_tensors, related, tensor_bytes, write_file, write_folder
from contracts import SIDE_FILES, FileSourceContract, SinkContract, SourceContract, header_of

from rsoup.buffers import first_difference
from rsoup.cooking import _FileSink, _Together
from rsoup.errors import RefusedFileError
from rsoup.library import make_recipe
from rsoup.prepare import prepared
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.memory import DiscardSink, MemorySink, MemorySource
from rsoup.storage.protocols import FileLayout, Sink, Source
from rsoup.storage.staging import Staging
from rsoup.tensors import DTYPES, Header, TensorSpec


def in_memory(tensors: Tensors, name: str = "memory", **options: object) -> MemorySource:
    """A MemorySource over torch tensors."""
    specs = header_of(tensors)
    held = {key: (specs[key], tensor_bytes(tensor)) for key, tensor in tensors.items()}
    return MemorySource(name, held, **options)  # type: ignore[arg-type]


class TestMemorySource(SourceContract):
    """The in-memory twin."""

    def open(self, name: str, tensors: Tensors) -> Source:
        """One file's worth of tensors."""
        return in_memory(tensors, name, side_files=SIDE_FILES)


class TestMemorySourceOfTwoFiles(SourceContract):
    """The in-memory twin of a sharded checkpoint."""

    def open(self, name: str, tensors: Tensors) -> Source:
        """Two files' worth of tensors."""
        names = list(tensors)
        files = [FileLayout("one", tuple(names[:2])), FileLayout("two", tuple(names[2:]))]
        return in_memory(tensors, name, files=files, side_files=SIDE_FILES)


class TestSingleFile(FileSourceContract):
    """A checkpoint that is one .safetensors file, which has no side files."""

    side_files: Mapping[str, bytes] = MappingProxyType({})

    def open(self, name: str, tensors: Tensors) -> CheckpointSource:
        """A file of its own name in a folder with other things."""
        folder = self.root / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        return open_checkpoint(str(write_file(folder / "mine.safetensors", tensors)))

    def open_again(self) -> CheckpointSource:
        """By the file's path."""
        return open_checkpoint(str(self.root / "source/mine.safetensors"))

    def weight_files(self) -> list[Path]:
        """The one."""
        return [self.root / "source/mine.safetensors"]


class TestFolder(FileSourceContract):
    """A folder as `save_pretrained` writes it, with one weight file, without config.json."""

    shards = 1
    variant: str | None = None

    def open(self, name: str, tensors: Tensors) -> CheckpointSource:
        """A folder and its side files."""
        folder = write_folder(
            self.root / name,
            tensors,
            shards=self.shards,
            variant=self.variant,
            config=None,
            side_files=SIDE_FILES,
        )
        return open_checkpoint(str(folder), variant=self.variant)

    def open_again(self) -> CheckpointSource:
        """By the folder's path and the variant."""
        return open_checkpoint(str(self.root / "source"), variant=self.variant)

    def weight_files(self) -> list[Path]:
        """All .safetensors files."""
        return sorted((self.root / "source").glob("*.safetensors"))


class TestShardedFolder(TestFolder):
    """A folder with three shards and their index."""

    shards = 3


class TestVariant(TestFolder):
    """A folder whose weights are `model.fp16.safetensors`."""

    variant = "fp16"


class TestShardedVariant(TestFolder):
    """A folder whose shards are `model.fp16-00001-of-00002.safetensors`."""

    shards = 2
    variant = "fp16"


class TestMemorySink(SinkContract):
    """The in-memory twin."""

    def make(self, header: Header) -> Sink:
        """An empty one."""
        return MemorySink(header)

    def contents(self, sink: Sink) -> dict[str, bytes]:
        """What it holds."""
        assert isinstance(sink, MemorySink)
        return {name: bytes(data) for name, data in sink.tensors.items()}

    @pytest.mark.parametrize(("start", "nbytes"), [(-1, 1), (0, 9), (8, 1)])
    def test_refuses_what_lies_outside(self, start: int, nbytes: int) -> None:
        """Bytes before or after a tensor are an error: the tensor never grows."""
        sink = MemorySink({"w": TensorSpec(DTYPES["F32"], (2,))})

        with pytest.raises(ValueError, match="are not all in"):
            sink.write("w", start, memoryview(bytes(nbytes)))
        assert bytes(8) == bytes(sink.tensors["w"])


class TestStagedFolder(SinkContract):
    """The sink of `rsoup merge`: weight files in a staging folder, here of several shards."""

    sink_of: ClassVar[type[_FileSink]] = _FileSink

    def make(self, header: Header) -> Sink:
        """The sink of a merge of one checkpoint that has these tensors."""
        zeros = {name: torch.zeros(spec.shape, dtype=spec.dtype.torch) for name, spec in header.items()}
        source = write_folder(self.root / "in", zeros)
        recipe = make_recipe([source], uniform=True, max_shard_size="10KB")
        with prepared(recipe, str(self.root / "out")) as ready:
            plan = ready.plan
        assert len(plan.files) > 1
        stack = ExitStack()
        files = {file.name: (file.pieces, file.nbytes) for file in plan.files}
        self.staging = stack.enter_context(Staging(str(self.root / "out"), plan.sha256(["one"]), files))
        self.leave = stack.close
        return self.sink_of(plan, self.staging)

    def contents(self, sink: Sink) -> dict[str, bytes]:
        """What the safetensors library reads once everything is committed."""
        assert isinstance(sink, _FileSink)
        self.staging.commit(overwrite=False, last={})
        self.leave()
        return {name: tensor_bytes(tensor) for name, tensor in read_tensors(self.root / "out").items()}


class TestStagedTogether(TestStagedFolder):
    """The same sink where small pieces wait for their neighbours; each thread says when it is done."""

    sink_of: ClassVar[type[_FileSink]] = _Together

    def test_writes_in_any_order_from_threads(self) -> None:
        """Threads that write stretches of all tensors, in order and not, large and small, and flush at their ends."""
        tensors = related(1, seed=3).tuned[0]
        sink = self.make(header_of(tensors))
        assert isinstance(sink, _Together)
        expected = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}
        pieces = [
            (name, start, data[start : start + step])
            for step, (name, data) in zip(cycle([7, 4099, 1 << 18]), expected.items(), strict=False)
            for start in range(0, len(data), step)
        ]
        rng = random.Random(5)
        stretches = [pieces[i : i + 50] for i in range(0, len(pieces), 50)]
        rng.shuffle(stretches)
        for stretch in stretches[::3]:
            rng.shuffle(stretch)

        def write(stretch: list[tuple[str, int, bytes]]) -> None:
            for name, start, data in stretch:
                buffer = bytearray(data)
                sink.write(name, start, memoryview(buffer))
                buffer[:] = b"\xaa" * len(buffer)
            sink.flush()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, stretches))

        assert expected == self.contents(sink)


def test_discard_sink_takes_anything() -> None:
    """A sink that only measures accepts every write and keeps nothing."""
    DiscardSink().write("w", 0, memoryview(b"1234"))


def test_memory_source_holds_what_its_header_says() -> None:
    """Bytes that are not as many as dtype and shape need are refused at once, by the tensor's name."""
    with pytest.raises(RefusedFileError, match="'w' has 3 bytes") as caught:
        MemorySource("m", {"w": (TensorSpec(DTYPES["F32"], (1,)), b"123")})
    assert caught.value.code == "E0802"


def test_memory_source_keeps_its_own_copy() -> None:
    """Changing the caller's buffer afterwards changes nothing in the checkpoint."""
    data = bytearray(b"1234")
    source = MemorySource("m", {"w": (TensorSpec(DTYPES["F32"], (1,)), data)})  # type: ignore[dict-item]
    data[0] = 0
    buffer = bytearray(4)
    source.read("w", 0, memoryview(buffer))

    assert bytes(buffer) == b"1234"


def held(name: str, spec: TensorSpec, data: bytes) -> MemorySource:
    """A checkpoint of one tensor."""
    return MemorySource(name, {"b": (spec, data)})


def test_buffers_equal_byte_for_byte_have_no_difference() -> None:
    """Two checkpoints with the same bytes do not differ, over many chunks and for no bytes at all."""
    for numel in (0, 1, 3_000_000):
        spec = TensorSpec(DTYPES["U8"], (numel,))
        data = bytes(range(256)) * (numel // 256 + 1)

        assert first_difference("b", held("x", spec, data[:numel]), held("y", spec, data[:numel])) is None


@pytest.mark.parametrize(
    ("dtype", "byte", "element"), [("I64", 16, 2), ("I64", 2_400_007, 300_000), ("U8", 5, 5), ("F4", 3, 6)]
)
def test_buffers_that_differ_are_named_by_element(dtype: str, byte: int, element: int) -> None:
    """The first element that differs is counted in elements of its dtype, from 0."""
    spec = TensorSpec(DTYPES[dtype], (300_032 * 64 // DTYPES[dtype].bits,))
    other = bytearray(spec.nbytes)
    other[byte] = 1

    found = first_difference("b", held("x", spec, bytes(spec.nbytes)), held("y", spec, bytes(other)))

    assert found == f"element {element} differs between 'x' and 'y'"


def test_buffers_of_other_kinds_are_described() -> None:
    """Another dtype or shape is a difference by itself."""
    one, other = TensorSpec(DTYPES["I64"], (2,)), TensorSpec(DTYPES["I32"], (4,))

    found = first_difference("b", held("x", one, bytes(16)), held("y", other, bytes(16)))

    assert found == "I64[2] and I32[4] in 'x' and 'y'"


@pytest.mark.fault("A22")
@pytest.mark.parametrize("bad", [2, 255])
def test_booleans_are_0_or_1(bad: int) -> None:
    """A boolean tensor with any other byte is refused, also compared with itself: readers disagree on it."""
    spec = TensorSpec(DTYPES["BOOL"], (5,))
    source = held("x", spec, bytes([0, 1, bad, 1, 0]))

    with pytest.raises(RefusedFileError, match="other than 0 and 1") as caught:
        first_difference("b", source, source)
    assert caught.value.code == "E0814"
