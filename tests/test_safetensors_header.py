"""The header of a safetensors file: whatever is malformed is refused, whatever we write is right."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from checkpoints import (
    raw_safetensors,
    read_tensors,
    record,
    related,
    tensor_bytes,
    tree,
    write_file,
)
from header_mutations import fuzz
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize, safe_open
from warm import rsoup

from rsoup.errors import IncompatibleError, RefusedFileError, RsoupError, TargetError
from rsoup.library import make_recipe
from rsoup.merging import merge
from rsoup.storage import safetensors_header
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.safetensors_header import MAX_HEADER_BYTES, encode_header, parse_header
from rsoup.tensors import DTYPES, TensorSpec


class Bad(NamedTuple):
    """A malformed file: its case, its bytes, and what the refusal says."""

    fault: str
    name: str
    data: bytes
    says: str
    code: str = "E0801"


W = record("F32", [2], 0, 8)
EIGHT = bytes(8)


def one(text: str | bytes, data: bytes = EIGHT) -> bytes:
    """A file whose header is this text."""
    return raw_safetensors(text, data)


def tensor(**changes: object) -> bytes:
    """A file of one tensor `w` with some fields of its record changed."""
    return raw_safetensors({"w": {**W, **changes}}, EIGHT)


def pairs(*items: tuple[str, object]) -> str:
    """A JSON object of these keys and values, whatever occurs twice."""
    return "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in items) + "}"


def two(first: tuple[int, int], second: tuple[int, int], nbytes: int) -> bytes:
    """A file of two byte tensors at these offsets."""
    header = {
        "a": record("U8", [first[1] - first[0]], *first),
        "b": record("U8", [second[1] - second[0]], *second),
    }
    return raw_safetensors(header, bytes(nbytes))


GOOD = raw_safetensors({"w": W}, EIGHT)
BAD = [
    Bad("A1", "empty", b"", "the file is empty (0 bytes)"),
    Bad("A1", "three bytes", b"\1\2\3", "3 bytes, too few for a header"),
    Bad("A1", "seven bytes", GOOD[:7], "7 bytes, too few for a header"),
    Bad("A1", "the length alone", GOOD[:8], "and the file has 8"),
    Bad("A2", "one byte too long", raw_safetensors({"w": W}, b"", length=62), "claims 62 bytes and the file has"),
    Bad("A2", "2^63", raw_safetensors({"w": W}, EIGHT, length=1 << 63), f"claims {1 << 63} bytes"),
    Bad("A2", "2^64-1", raw_safetensors({"w": W}, EIGHT, length=(1 << 64) - 1), f"claims {(1 << 64) - 1} bytes"),
    Bad("A2", "over 100 MB", raw_safetensors({"w": W}, EIGHT, length=100_000_001), "100000000 is the limit"),
    Bad("A3", "git-lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a git-lfs pointer"),
    Bad("A4", "html", b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    Bad("A4", "html, indented", b"\n\n  <HTML><head><title>Sign in</title></head></html>", "a web page"),
    Bad("A4", "xml", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    Bad("A5", "gguf", b"GGUF\3\0\0\0" + bytes(64), "a GGUF file"),
    Bad("A5", "zip", b"PK\3\4\x14\0\0\0\x08\x08" + bytes(64), "a zip archive"),
    Bad("A5", "pickle 2", pickle.dumps({"w": 1}, 2) + bytes(64), "a Python pickle"),
    Bad("A5", "pickle 5", pickle.dumps({"w": 1}, 5) + bytes(64), "a Python pickle"),
    Bad("A5", "gzip", gzip.compress(GOOD), "a gzip archive"),
    Bad("A5", "hdf5", b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    Bad("A6", "not UTF-8", one(b'{"\xff":{}}'), "not UTF-8"),
    Bad("A6", "surrogate bytes", one(b'{"\xed\xa0\x80":{}}'), "not UTF-8"),
    Bad("A6", "lone surrogate", raw_safetensors({"w\ud800": W}, EIGHT), "not valid Unicode", "E0802"),
    Bad("A6", "lone surrogate in metadata", one('{"__metadata__":{"k":"\\ud800"}}', b""), "not valid Unicode"),
    Bad("A6", "byte order mark", one(b"\xef\xbb\xbf" + json.dumps({"w": W}).encode()), "byte order mark"),
    Bad("A7", "not JSON", one('{"w": {"dtype" "F32"}}'), "not valid JSON"),
    Bad("A7", "cut", one('{"w": {"dtype": "F32", "sha'), "not valid JSON"),
    Bad("A7", "text after it", one("{} x"), "not valid JSON"),
    Bad("A7", "no header at all", one("", b""), "not a JSON object"),
    Bad("A7", "a list", one("[]"), "not a JSON object"),
    Bad("A7", "null", one("null"), "not a JSON object"),
    Bad("A7", "NaN", one('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'), "NaN is not JSON"),
    Bad("A7", "4.0", tensor(shape=[2.0]), "2.0 where a whole number belongs"),
    Bad("A7", "1e0", one('{"w":{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}}'), "2e0 where a whole"),
    Bad("A7", "-0", one('{"w":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}'), "-0 where a whole"),
    Bad("A7", "5000 digits", one('{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % ("9" * 5000)), "JSON"),
    Bad("A7", "400 digits", one('{"w":{"dtype":"F32","shape":[%s],"data_offsets":[0,8]}}' % ("9" * 400)), "shape", "E0802"),
    Bad("A7", "5000 deep", one('{"w":' + "[" * 5000 + "]" * 5000 + "}"), "nested too deeply"),
    Bad("A9", "NUL padding", one(json.dumps({"w": W}).encode() + b"\0\0\0"), "padded with NUL bytes"),
    Bad("A10", "twice, other offsets", one(pairs(("w", W), ("w", record("F32", [2], 8, 16))), bytes(16)), "'w' occurs twice"),
    Bad("A11", "twice, other shape", one(pairs(("w", W), ("w", {**W, "shape": [1, 2]}))), "'w' occurs twice"),
    Bad("A11", "twice, other dtype", one(pairs(("w", W), ("w", {**W, "dtype": "I32"}))), "'w' occurs twice"),
    Bad("A11", "a field twice", one('{"w":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}'), "'dtype' occurs twice"),
    Bad("A12", "metadata key twice", one('{"__metadata__":{"k":"1","k":"2"}}', b""), "'k' occurs twice"),
    Bad("A12", "metadata twice", one(pairs(("__metadata__", {}), ("__metadata__", {}), ("w", W))), "'__metadata__' occurs twice"),
    Bad("A13", "a table as unknown field", tensor(scale={"a": 1}), "unknown field 'scale'", "E0802"),
    Bad("A13", "a list as unknown field", tensor(strides=[1]), "unknown field 'strides'", "E0802"),
    Bad("A14", "metadata number", raw_safetensors({"__metadata__": {"k": 1}, "w": W}, EIGHT), "__metadata__ is not a table of texts"),
    Bad("A14", "metadata nested", raw_safetensors({"__metadata__": {"k": {}}, "w": W}, EIGHT), "__metadata__ is not a table of texts"),
    Bad("A14", "metadata null value", raw_safetensors({"__metadata__": {"k": None}, "w": W}, EIGHT), "__metadata__ is not a table of texts"),
    Bad("A14", "metadata list", raw_safetensors({"__metadata__": ["k"], "w": W}, EIGHT), "__metadata__ is not a table of texts"),
    Bad("A15", "a hole", two((0, 4), (5, 8), 8), "a gap in the file before tensor 'b'", "E0803"),
    Bad("A15", "a hole at the start", two((1, 4), (4, 8), 8), "a gap in the file before tensor 'a'", "E0803"),
    Bad("A15", "an overlap", two((0, 5), (4, 8), 8), "an overlap in the file before tensor 'b'", "E0803"),
    Bad("A15", "the same bytes", two((0, 8), (0, 8), 8), "an overlap", "E0803"),
    Bad("A15", "reversed", tensor(data_offsets=[8, 0]), "impossible offsets [8, 0]", "E0802"),
    Bad("A15", "negative", tensor(data_offsets=[-8, 0]), "impossible offsets [-8, 0]", "E0802"),
    Bad("A15", "three offsets", tensor(data_offsets=[0, 4, 8]), "impossible offsets", "E0802"),
    Bad("A15", "no offsets", tensor(data_offsets=None), "impossible offsets", "E0802"),
    Bad("A15", "true as an offset", tensor(dtype="U8", shape=[1], data_offsets=[False, True]), "impossible offsets", "E0802"),
    Bad("A15", "a field missing", raw_safetensors({"w": {"dtype": "F32", "shape": [2]}}, EIGHT), "without dtype, shape or data_offsets", "E0802"),
    Bad("A15", "a record that is a list", raw_safetensors({"w": ["F32", [2], [0, 8]]}, EIGHT), "without dtype, shape or data_offsets", "E0802"),
    Bad("A16", "fewer bytes", tensor(shape=[3]), "F32[3]) needs 12 bytes and has 8", "E0802"),
    Bad("A16", "more bytes", tensor(shape=[1]), "F32[1]) needs 4 bytes and has 8", "E0802"),
    Bad("A16", "a product of 2^64 + 2", tensor(dtype="U8", shape=[1 << 32, 1 << 32]), "needs 18446744073709551616 bytes", "E0802"),
    Bad("A16", "a product that wraps to 8", tensor(shape=[(1 << 47) + 1, 1 << 47, 2]), "and has 8", "E0802"),
    Bad("A17", "[0, 2^62, 2^62]", raw_safetensors({"w": record("F32", [0, 1 << 62, 1 << 62], 0, 0)}), "impossible shape", "E0802"),
    Bad("A17", "[0, 2^63]", raw_safetensors({"w": record("F32", [0, 1 << 63], 0, 0)}), "impossible shape", "E0802"),
    Bad("A17", "2^94 but for a zero", raw_safetensors({"w": record("F32", [1 << 47, 1 << 47, 0], 0, 0)}), "impossible shape", "E0802"),
    Bad("A17", "negative", tensor(shape=[-2]), "impossible shape [-2]", "E0802"),
    Bad("A17", "true as a size", tensor(shape=[True, 2]), "impossible shape", "E0802"),
    Bad("A17", "no list", tensor(shape=2), "impossible shape 2", "E0802"),
    Bad("A18", "rank 65", tensor(shape=[1] * 64 + [2]), "impossible shape", "E0802"),
    Bad("A18", "rank 1000", tensor(shape=[1] * 999 + [2]), "impossible shape", "E0802"),
    Bad("A19", "F24", tensor(dtype="F24"), "unknown dtype 'F24'", "E0802"),
    Bad("A19", "lower case", tensor(dtype="f32"), "unknown dtype 'f32'", "E0802"),
    Bad("A19", "no text", tensor(dtype=32), "unknown dtype '32'", "E0802"),
    Bad("A19", "a list", tensor(dtype=["F32"]), "unknown dtype", "E0802"),
    Bad("A20", "three halves of a byte", raw_safetensors({"w": record("F4", [3], 0, 1)}, b"\0"), "does not fill whole bytes", "E0802"),
    Bad("A20", "three six-bit numbers", raw_safetensors({"w": record("F6_E2M3", [3], 0, 2)}, bytes(2)), "does not fill whole bytes", "E0802"),
    Bad("A25", "cut", GOOD[:-3], "expected 77 bytes, have 74", "E0803"),
    Bad("A25", "all weights gone", GOOD[:-8], "expected 77 bytes, have 69", "E0803"),
    Bad("A25", "bytes behind", GOOD + b"PK\3\4", "4 bytes follow the last tensor; expected 77, have 81", "E0803"),
    Bad("B8", "a name of 5000 bytes", raw_safetensors({"w" * 5000: W}, EIGHT), "a name of 5000 bytes", "E0802"),
    Bad("B8", "a name of 2000 wide letters", raw_safetensors({"ü" * 2049: W}, EIGHT), "a name of 4098 bytes", "E0802"),
]  # fmt: skip


def in_file(path: Path, data: bytes) -> str:
    """A file of these bytes, as a command line names it."""
    path.write_bytes(data)
    return str(path)


@pytest.mark.fault(*sorted({bad.fault for bad in BAD}, key=lambda fault: (fault[0], int(fault[1:]))))
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.fault}: {bad.name}")
def test_malformed_files_are_refused(bad: Bad, tmp_path: Path) -> None:
    """A malformed file ends a merge with exit class 8 and a message that names file and rule; nothing is written."""
    good = in_file(tmp_path / "good.safetensors", GOOD)
    path = in_file(tmp_path / "bad.safetensors", bad.data)
    before = tree(tmp_path)

    with pytest.raises(RefusedFileError) as caught:
        merge(make_recipe([good, path], uniform=True), tmp_path / "out")

    error = caught.value
    assert (error.code, error.exit_code) == (bad.code, 8)
    assert bad.says in error.message
    assert error.where == path
    assert len(error.message) < 1000
    assert before == tree(tmp_path)


@pytest.mark.fault("A1")
def test_refusals_reach_the_shell(tmp_path: Path) -> None:
    """The command line says error, place and hint on stderr, exits with 8 and leaves nothing behind."""
    good = in_file(tmp_path / "good.safetensors", GOOD)
    bad = in_file(tmp_path / "bad.safetensors", b"")

    done = rsoup("merge", good, bad, "--uniform", "-o", tmp_path / "out")

    assert done.returncode == 8
    assert done.stdout == ""
    assert "error[E0801]: the file is empty (0 bytes)\n" in done.stderr
    assert os.fspath(bad) in done.stderr
    assert "  hint   an interrupted download? fetch it again\n" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.safetensors", "good.safetensors"]


def opened(tmp_path: Path, data: bytes) -> tuple[dict[str, TensorSpec], tuple[str, ...]]:
    """The header and the notes of a file of these bytes."""
    source = open_checkpoint(in_file(tmp_path / "file.safetensors", data))
    source.close()
    return dict(source.header), tuple(source.notes)


@pytest.mark.parametrize("length", [640, 768, 896, 1024, 1152, 1280, 1408, 0x8B1F])
def test_a_length_that_looks_like_magic_is_a_length(tmp_path: Path, length: int) -> None:
    """A header of 640 bytes begins with the bytes of a pickle, one of 35,615 with those of gzip: both are read."""
    text = json.dumps({"w": W}).encode().ljust(length)

    assert list(opened(tmp_path, raw_safetensors(text, EIGHT))[0]) == ["w"]


@pytest.mark.fault("A8")
def test_white_space_before_the_header_is_noted(tmp_path: Path) -> None:
    """What the library takes against the specification is read, and the reader is told."""
    header, notes = opened(tmp_path, one(b" \n" + json.dumps({"w": W}).encode()))

    assert list(header) == ["w"]
    assert "white space before the header" in notes[0]


@pytest.mark.fault("A13")
def test_unknown_fields_are_noted(tmp_path: Path) -> None:
    """A plain value under an unknown key is ignored, aloud."""
    header, notes = opened(tmp_path, tensor(later="1"))

    assert list(header) == ["w"]
    assert "unknown field 'later'" in notes[0]


@pytest.mark.fault("A14")
def test_null_metadata_is_none(tmp_path: Path) -> None:
    """`"__metadata__": null` means that there is none."""
    assert opened(tmp_path, raw_safetensors({"__metadata__": None, "w": W}, EIGHT))[1] == ()


@pytest.mark.fault("A21")
@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes"), [("F4", [2, 3], 3), ("F6_E3M2", [4], 3), ("F8_E8M0", [3], 3)]
)
def test_packed_numbers_are_read_and_never_averaged(
    tmp_path: Path, dtype: str, shape: list[int], nbytes: int
) -> None:
    """Well-formed packed tensors open with their size in bytes; two that differ have no mean (exit 3)."""
    paths = [
        in_file(
            tmp_path / f"{i}.safetensors",
            raw_safetensors({"w": record(dtype, shape, 0, nbytes)}, bytes([i]) * nbytes),
        )
        for i in range(2)
    ]
    source = open_checkpoint(paths[0])

    assert source.header["w"].nbytes == nbytes
    with pytest.raises(IncompatibleError):
        merge(make_recipe(paths, uniform=True), tmp_path / "out")


@pytest.mark.fault("A22")
def test_booleans_of_2_end_a_merge(tmp_path: Path) -> None:
    """A boolean byte that is neither 0 nor 1 is refused before anything is written, even if all agree on it."""
    data = raw_safetensors({"flag": record("BOOL", [3], 0, 3)}, b"\0\1\2")
    paths = [in_file(tmp_path / f"{i}.safetensors", data) for i in range(2)]

    with pytest.raises(RefusedFileError) as caught:
        merge(make_recipe(paths, uniform=True), tmp_path / "out.safetensors")

    assert caught.value.code == "E0814"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.fault("A23")
@pytest.mark.parametrize("dtype", ["C64", "U64", "U32", "U16", "F64"])
def test_rare_dtypes_are_read(tmp_path: Path, dtype: str) -> None:
    """Complex, unsigned and double tensors open; one checkpoint alone comes out as it went in."""
    nbytes = 3 * DTYPES[dtype].itemsize
    path = in_file(
        tmp_path / "in.safetensors",
        raw_safetensors({"w": record(dtype, [3], 0, nbytes)}, bytes(range(nbytes))),
    )

    merge(make_recipe([path], uniform=True), tmp_path / "out.safetensors")

    assert (tmp_path / "out.safetensors").read_bytes().endswith(bytes(range(nbytes)))


@pytest.mark.fault("A24")
def test_unaligned_tensors_are_mixed(tmp_path: Path) -> None:
    """Floats that begin at odd bytes are read and averaged like any others."""
    floats = torch.tensor([1.0, -2.5, 3.25])
    header = {"odd": record("U8", [3], 0, 3), "w": record("F32", [3], 3, 15)}
    paths = [
        in_file(
            tmp_path / f"{i}.safetensors",
            one(json.dumps(header) + " " * i, b"abc" + tensor_bytes(floats + i)),
        )
        for i in range(2)
    ]

    merge(make_recipe(paths, uniform=True), tmp_path / "out.safetensors")

    out = read_tensors(tmp_path / "out.safetensors")
    assert out["w"].equal(floats + 0.5)
    assert bytes(out["odd"].tolist()) == b"abc"


@pytest.mark.fault("A26")
def test_scalars_and_empty_tensors_are_tensors(tmp_path: Path) -> None:
    """A tensor without elements and one without dimensions come through a merge with dtype and shape."""
    tensors = {"none": torch.empty(0, 7), "scalar": torch.tensor(2.0)}
    paths = [write_file(tmp_path / f"{i}.safetensors", tensors) for i in range(2)]

    merge(make_recipe(paths, uniform=True), tmp_path / "out.safetensors")

    out = read_tensors(tmp_path / "out.safetensors")
    assert {name: tuple(value.shape) for name, value in out.items()} == {"none": (0, 7), "scalar": ()}
    assert out["scalar"].item() == 2.0


@pytest.mark.fault("A26")
def test_a_model_without_tensors_has_no_mean(tmp_path: Path) -> None:
    """A file without tensors opens, and there is nothing to mix in it (exit 3)."""
    paths = [in_file(tmp_path / f"{i}.safetensors", raw_safetensors({})) for i in range(2)]

    with pytest.raises(IncompatibleError):
        merge(make_recipe(paths, uniform=True), tmp_path / "out.safetensors")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.fault("A32")
def test_big_endian_machines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes mean other numbers rsoup refuses before it reads one."""
    path = in_file(tmp_path / "w.safetensors", GOOD)
    monkeypatch.setattr(sys, "byteorder", "big")

    with pytest.raises(RsoupError, match="little-endian") as caught:
        open_checkpoint(path)
    assert caught.value.code == "E0815"


def experts(count: int) -> dict[str, TensorSpec]:
    """The tensors of a mixture of experts of 2 TB."""
    spec = TensorSpec(DTYPES["BF16"], (2048, 16384))
    return {f"model.layers.{i // 500}.mlp.experts.{i % 500}.down_proj.weight": spec for i in range(count)}


MEASURE = """
import sys, time
from pathlib import Path
from rsoup.storage.checkpoint import open_checkpoint
begun = time.perf_counter()
source = open_checkpoint(sys.argv[1])
seconds = time.perf_counter() - begun
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
last = list(source.header)[-1]
buffer = memoryview(bytearray(min(64, source.header[last].nbytes)))
source.read(last, source.header[last].nbytes - len(buffer), buffer)
print(len(source.header), seconds, int(peak.split()[1]) / 1024)
"""


class Opening(NamedTuple):
    """What opening a checkpoint took in a process of its own."""

    tensors: int
    seconds: float
    mebibytes: float


def measured(path: Path) -> Opening:
    """A file opened in a new process, and the last bytes of its last tensor read."""
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True, timeout=300
    )
    tensors, seconds, mebibytes = done.stdout.split()
    print(done.stdout)
    return Opening(int(tensors), float(seconds), float(mebibytes))


@pytest.mark.fault("A28", "A29")
def test_two_terabytes_open_in_seconds(tmp_path: Path) -> None:
    """30,000 tensors in a sparse file of 2 TB open in little time and less than 200 MB, and read at the end."""
    head = encode_header(specs := experts(30_000), {"format": "pt"})
    path = tmp_path / "model.safetensors"
    path.write_bytes(head)
    try:
        os.truncate(path, len(head) + sum(spec.nbytes for spec in specs.values()))
    except OSError:
        pytest.skip("this file system has no sparse files of 2 TB")

    opening = measured(path)

    assert opening.tensors == 30_000
    assert opening.seconds < 5
    assert opening.mebibytes < 200


@pytest.mark.fault("A28")
def test_shards_of_30000_tensors_open_in_seconds(tmp_path: Path) -> None:
    """30,000 tensors in 30 shards with their index open in little time."""
    names = list(experts(30_000))
    weight_map: dict[str, str] = {}
    for number in range(30):
        part = names[number * 1000 : (number + 1) * 1000]
        file = f"model-{number + 1:05d}-of-00030.safetensors"
        head = encode_header({name: TensorSpec(DTYPES["U8"], (1,)) for name in part}, {})
        (tmp_path / file).write_bytes(head + bytes(1000))
        weight_map |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    begun = time.perf_counter()

    source = open_checkpoint(str(tmp_path))

    assert len(source.header) == 30_000
    assert time.perf_counter() - begun < 5


@pytest.mark.long
@pytest.mark.fault("A27")
def test_a_million_tensors_open(tmp_path: Path) -> None:
    """The largest header the format allows, a million tensors in 94 MB, opens in bounded time and memory."""
    spec = TensorSpec(DTYPES["U8"], (1,))
    head = encode_header({f"layers.{i:07d}.weight": spec for i in range(1_000_000)}, {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(head + bytes(1_000_000))

    opening = measured(path)

    assert len(head) < MAX_HEADER_BYTES
    assert opening.tensors == 1_000_000
    assert opening.seconds < 120
    assert opening.mebibytes < 3000


@pytest.mark.fault("A2", "A7", "A15", "A16")
@pytest.mark.parametrize("seed", range(4))
def test_never_looser_than_the_library(seed: int) -> None:
    """Of mutated files, none is taken that the safetensors library refuses, none is read differently, none crashes."""
    tally = fuzz(seed, 5000)

    assert not [what for what in tally if what.startswith(("looser", "different"))]
    assert tally["accepted by both"] > 100
    assert tally["refused by both"] > 1000
    assert tally["stricter"] > 5


@pytest.mark.long
@pytest.mark.fault("A2", "A7", "A15", "A16")
def test_never_looser_than_the_library_in_millions() -> None:
    """The same, two million times over."""
    tally = fuzz(20_261_124, 2_000_000)
    print(dict(tally))

    assert not [what for what in tally if what.startswith(("looser", "different"))]


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda name: name != "__metadata__"
)
SPECS = st.builds(
    lambda dtype, shape: TensorSpec(DTYPES[dtype], tuple(size * 4 for size in shape[:1]) + tuple(shape[1:])),
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
)
SCALARS = st.sampled_from([TensorSpec(dtype, ()) for dtype in DTYPES.values() if dtype.bits % 8 == 0])
HEADERS = st.dictionaries(NAMES, SPECS | SCALARS, max_size=8)
METADATA = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
    max_size=4,
)


@given(HEADERS, METADATA)
def test_what_is_written_is_read_back(tensors: dict[str, TensorSpec], metadata: dict[str, str]) -> None:
    """parse ∘ encode is the identity on tensors, order and metadata; the data begins at a multiple of 8."""
    head = encode_header(tensors, metadata)
    size = len(head) + sum(spec.nbytes for spec in tensors.values())

    parsed = parse_header(head[8:], size, "written")

    assert len(head) % 8 == 0
    assert int.from_bytes(head[:8], "little") == len(head) - 8
    assert {name: entry.spec for name, entry in parsed.entries.items()} == tensors
    assert [entry.begin for entry in parsed.entries.values()] == sorted(
        e.begin for e in parsed.entries.values()
    )
    assert (dict(parsed.metadata), parsed.notes) == (metadata, ())


@given(HEADERS, METADATA)
def test_what_is_written_is_canonical(tensors: dict[str, TensorSpec], metadata: dict[str, str]) -> None:
    """The bytes depend on tensors, their order and metadata alone, not on the metadata's order."""
    head = encode_header(tensors, metadata)

    assert head == encode_header(dict(tensors), dict(reversed(metadata.items())))
    assert (
        head[8:].rstrip(b" ")
        == json.dumps(json.loads(head[8:]), separators=(",", ":"), ensure_ascii=False).encode()
    )


@given(HEADERS, METADATA)
def test_what_is_written_is_taken_by_the_library(
    tensors: dict[str, TensorSpec], metadata: dict[str, str]
) -> None:
    """The safetensors library reads the same dtypes and shapes from it."""
    head = encode_header(tensors, metadata)
    whole = head + bytes(sum(spec.nbytes for spec in tensors.values()))

    seen = deserialize(whole)  # type: ignore[no-untyped-call]  # the library has no types

    assert {name: (view["dtype"], tuple(view["shape"])) for name, view in seen} == {
        name: (spec.dtype.name, spec.shape) for name, spec in tensors.items()
    }


def test_headers_no_reader_would_take_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header beyond the format's limit is an error about the output, with the way out."""
    monkeypatch.setattr(safetensors_header, "MAX_HEADER_BYTES", 32)

    with pytest.raises(TargetError, match="32 is the limit") as caught:
        encode_header({"w": TensorSpec(DTYPES["F32"], (2,))}, {})
    assert caught.value.hint == "write more, smaller files: --max-shard-size"


def test_metadata_is_no_tensors_name() -> None:
    """A tensor cannot take the place of the metadata."""
    with pytest.raises(ValueError, match="__metadata__"):
        encode_header({"__metadata__": TensorSpec(DTYPES["F32"], (2,))}, {})


@pytest.mark.fault("B12")
def test_metadata_of_ingredients_stays_behind(tmp_path: Path) -> None:
    """The soup's metadata says `format: pt`, which loaders ask for, and nothing an ingredient said."""
    tensors = related(2).tuned
    paths = [
        write_file(tmp_path / f"{i}.safetensors", tensors[i], {"format": "pt", "token": "secret-canary"})
        for i in range(2)
    ]

    merge(make_recipe(paths, uniform=True), tmp_path / "out.safetensors")

    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "pt"
    assert "canary" not in str(metadata)
    assert b"canary" not in b"".join(
        tree(tmp_path)[name] for name in tree(tmp_path) if name.startswith("out")
    )
