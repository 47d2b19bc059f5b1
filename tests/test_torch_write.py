"""Archives for torch.load: torch, Python's zipfile and our own reader find in them what was put in."""

from __future__ import annotations

import os
import random
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_corpus import Memory, read_all, unzipped

from rsoup.errors import TargetError
from rsoup.storage.files import open_regular
from rsoup.storage.pickled.pickle_machine import interpret
from rsoup.storage.pickled.torch_file import check_crc, parse_torch_file
from rsoup.storage.pickled.torch_write import archive
from rsoup.storage.pickled.zip_directory import read_directory
from rsoup.storage.pickled.zip_write import Archive, fill_crcs
from rsoup.tensors import DTYPES, TensorSpec

DTYPE_NAMES = [name for name, dtype in DTYPES.items() if dtype.torch_name]
SHAPES = [(), (0,), (5,), (3, 0, 2), (2, 3), (1, 1, 4), (2, 3, 4, 5), (1, 2, 1, 2, 1, 300), (70_000,)]


def contents(tensors: Mapping[str, TensorSpec], seed: int = 0) -> dict[str, bytes]:
    """Random bytes for tensors; booleans are 0 or 1."""
    dice = random.Random(seed)
    found = {}
    for name, spec in tensors.items():
        data = dice.randbytes(spec.nbytes)
        found[name] = bytes(byte % 2 for byte in data) if spec.dtype.name == "BOOL" else data
    return found


def written(
    path: Path, tensors: Mapping[str, TensorSpec], data: Mapping[str, bytes], root: str = "soup"
) -> Archive:
    """A file made as a merge makes one: the frame, then the tensors, last to first, then the checksums."""
    made = archive(tensors, root=root)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(fd, made.nbytes)
        for at, piece in made.pieces:
            os.pwrite(fd, piece, at)
        for name in reversed(tensors):
            os.pwrite(fd, data[name], made.offsets[name])
        fill_crcs(fd, made.crc_places)
        assert os.fstat(fd).st_size == made.nbytes
    finally:
        os.close(fd)
    return made


def check(path: Path, tensors: Mapping[str, TensorSpec], data: Mapping[str, bytes]) -> None:
    """Everybody reads the file, and reads the same."""
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)
        assert list(loaded) == list(tensors)
        for name, spec in tensors.items():
            value = loaded[name]
            assert (value.dtype, tuple(value.shape)) == (spec.dtype.torch, spec.shape)
            assert value.is_contiguous()
            assert not value.requires_grad
            flat = value.reshape(-1).view(torch.uint8) if value.numel() else torch.empty(0)
            assert flat.numpy().tobytes() == data[name]
    file, seen = read_all(path.read_bytes())
    assert {name: (spec.dtype.torch, spec.shape, data[name]) for name, spec in tensors.items()} == seen
    assert (file.key, file.notes, file.ignored, file.tied) == (".", (), (), ())


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_dtype_and_shape_is_written(dtype: str, tmp_path: Path) -> None:
    """Tensors of every dtype torch has and of all kinds of shapes are loaded as they were."""
    tensors = {f"layer.{i}": TensorSpec(DTYPES[dtype], shape) for i, shape in enumerate(SHAPES)}
    data = contents(tensors)

    written(tmp_path / "w.pt", tensors, data)

    check(tmp_path / "w.pt", tensors, data)


@given(st.data())
@settings(max_examples=40)
def test_any_state_dict_is_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any names, any mixture of dtypes and shapes, in any order."""
    spec = st.builds(
        TensorSpec,
        st.sampled_from(DTYPE_NAMES).map(DTYPES.__getitem__),
        st.lists(st.integers(0, 7), max_size=4).map(tuple),
    )
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=20)
    tensors = data.draw(st.dictionaries(names, spec, max_size=8))
    path = tmp_path_factory.mktemp("written") / "w.pt"
    content = contents(tensors)

    written(path, tensors, content, root=data.draw(st.sampled_from(["a", "soup", "modèle", "x" * 100])))

    check(path, tensors, content)


def test_more_names_than_a_byte_counts(tmp_path: Path) -> None:
    """Models of hundreds of tensors, whose pickle needs the long forms of everything, are loaded."""
    tensors = {f"layers.{i}.weight": TensorSpec(DTYPES["BF16"], (i % 3, 2)) for i in range(700)}
    data = contents(tensors)

    written(tmp_path / "w.pt", tensors, data)

    check(tmp_path / "w.pt", tensors, data)


def test_tensors_are_aligned() -> None:
    """Every tensor begins at a multiple of 64 bytes, as torch's own do, and no two bytes overlap."""
    tensors = {f"{'n' * i}": TensorSpec(DTYPES["U8"], (i,)) for i in range(200)}
    made = archive(tensors, root="soup")
    taken = [(at, at + len(piece)) for at, piece in made.pieces]
    taken += [(at, at + tensors[name].nbytes) for name, at in made.offsets.items() if tensors[name].nbytes]

    assert all(at % 64 == 0 for at in made.offsets.values())
    assert [begin for begin, _ in sorted(taken)] == [0, *(end for _, end in sorted(taken))][:-1]
    assert max(end for _, end in taken) == made.nbytes


def test_the_same_tensors_give_the_same_bytes() -> None:
    """Nothing in a file depends on the time, the machine or chance; other tensors get another id."""
    tensors = {"w": TensorSpec(DTYPES["F32"], (2,))}

    one, two = archive(tensors, root="a"), archive(dict(tensors), root="a")
    other = archive({"v": TensorSpec(DTYPES["F32"], (2,))}, root="a")

    assert one == two
    ids = {piece for made in (one, other) for _, piece in made.pieces if len(piece) == 40 and piece.isdigit()}
    assert len(ids) == 2


def test_members_are_what_torch_looks_for(tmp_path: Path) -> None:
    """The archive has the records torch.save writes, in one folder of the given name."""
    tensors = {"w": TensorSpec(DTYPES["F32"], (2,)), "b": TensorSpec(DTYPES["F8_E4M3"], (3,))}
    written(tmp_path / "w.pt", tensors, contents(tensors), root="soup")
    members = unzipped((tmp_path / "w.pt").read_bytes())

    assert list(members) == [
        f"soup/{name}"
        for name in ("data.pkl", "byteorder", "data/0", "data/1", "version", ".data/serialization_id")
    ]
    assert (members["soup/byteorder"], members["soup/version"]) == (b"little", b"3\n")
    assert interpret(members["soup/data.pkl"], "x")[1] == len(members["soup/data.pkl"])


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_dtypes_torch_has_no_tensors_of(dtype: str) -> None:
    """What torch could not load is not written."""
    with pytest.raises(TargetError) as caught:
        archive({"w": TensorSpec(DTYPES[dtype], (4,))}, root="a")

    assert caught.value.code == "E0608"
    assert caught.value.message == f"torch has no tensors of {dtype}, which 'w' is"


def test_a_file_cut_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Checksums are of what is in the file; where it ends too early that is an error."""
    made = archive({"w": TensorSpec(DTYPES["F32"], (1000,))}, root="a")
    path = tmp_path / "w.pt"
    path.write_bytes(bytes(200))
    fd = os.open(path, os.O_RDWR)

    with pytest.raises(TargetError, match="was cut"):
        fill_crcs(fd, made.crc_places)
    os.close(fd)


@pytest.mark.parametrize("huge", [(1 << 32) - 1, 1 << 32, (1 << 32) + 5], ids=["-1", "0", "+5"])
def test_files_beyond_four_gigabytes(huge: int, tmp_path: Path) -> None:
    """Members that are longer than 2^32 bytes, and those that begin beyond, are found by torch and by us."""
    tensors = {"big": TensorSpec(DTYPES["U8"], (huge,)), "after": TensorSpec(DTYPES["I64"], (3,))}
    made = archive(tensors, root="soup")
    path = tmp_path / "w.pt"
    with path.open("wb") as file:
        try:
            file.truncate(made.nbytes)
        except OSError:
            pytest.skip("this file system has no sparse files of 4 GB")
        for at, piece in made.pieces:
            os.pwrite(file.fileno(), piece, at)
        os.pwrite(file.fileno(), struct.pack("<3q", 1, 2, 3), made.offsets["after"])
        os.pwrite(file.fileno(), b"end", made.offsets["big"] + huge - 3)

    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["after"].tolist() == [1, 2, 3]
    assert bytes(loaded["big"][-3:].tolist()) == b"end"
    with zipfile.ZipFile(path) as found:
        assert found.getinfo("soup/data/0").file_size == huge
        assert found.getinfo("soup/data/1").header_offset > huge
    source = open_regular(str(path), "w.pt")
    file_seen = parse_torch_file(source, "w.pt")
    source.close()
    assert {name: stored.begin for name, stored in file_seen.tensors.items()} == dict(made.offsets)


@pytest.mark.long
def test_checksums_of_files_beyond_four_gigabytes(tmp_path: Path) -> None:
    """The checksum of a member of more than 4 GB is right too."""
    tensors = {"big": TensorSpec(DTYPES["U8"], ((1 << 32) + 5,)), "after": TensorSpec(DTYPES["I64"], (3,))}
    made = archive(tensors, root="soup")
    path = tmp_path / "w.pt"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.truncate(fd, made.nbytes)
    for at, piece in made.pieces:
        os.pwrite(fd, piece, at)
    fill_crcs(fd, made.crc_places)
    os.close(fd)
    source = open_regular(str(path), "w.pt")

    check_crc(source, parse_torch_file(source, "w.pt"))
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
    source.close()


def test_more_members_than_zip_counts(tmp_path: Path) -> None:
    """Seventy thousand tensors need the larger end record, and have it."""
    tensors = {f"t{i}": TensorSpec(DTYPES["U8"], (1,)) for i in range(70_000)}
    made = archive(tensors, root="s")
    whole = bytearray(made.nbytes)
    for at, piece in made.pieces:
        whole[at : at + len(piece)] = piece
    path = tmp_path / "w.pt"
    path.write_bytes(whole)

    members = read_directory(Memory(bytes(whole)), "w.pt")
    assert len(members) == 70_004
    assert {name: members[f"s/data/{i}"].begin for i, name in enumerate(tensors)} == dict(made.offsets)
    with zipfile.ZipFile(path) as found:
        assert len(found.infolist()) == 70_004
