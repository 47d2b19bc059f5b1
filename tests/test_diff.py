"""rsoup diff: what differs between two checkpoints, held against a float64 reference in NumPy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import raw_safetensors, record, related, write_file, write_folder
from conftest import Folders
from hypothesis import given
from hypothesis import strategies as st
from warm import Warm

import rsoup
from rsoup.errors import AccessError, RefusedFileError, UsageError
from rsoup.proof import differing
from rsoup.proof.deviation import deviation, part_of
from rsoup.proof.differing import DiffResult
from rsoup.proof.elements import bits_of, ulps_apart, unlike, value_text
from rsoup.tensors import DTYPES, TensorSpec

FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E5M2": 1, "F8_E4M3": 1}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


def view(data: bytes) -> memoryview:
    """Bytes that torch may look at."""
    return memoryview(bytearray(data))


def values(name: str, data: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The elements as float64, by torch alone."""
    return torch.frombuffer(bytearray(data), dtype=DTYPES[name].torch).to(torch.float64).numpy()


def files(folder: Path, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> tuple[Path, Path]:
    """Two files with these tensors."""
    one, other = ({name: value.clone() for name, value in side.items()} for side in (a, b))
    return write_file(folder / "a.safetensors", one), write_file(folder / "b.safetensors", other)


# --- one slice against a reference -----------------------------------------------------------------------------------


@st.composite
def sides(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A float dtype and two runs of its elements, many of them equal, all bit patterns among them."""
    name = draw(st.sampled_from(sorted(FLOATS)))
    count = draw(st.integers(1, 12))
    one = draw(st.binary(min_size=count * FLOATS[name], max_size=count * FLOATS[name]))
    other = bytearray(one)
    for at in draw(st.lists(st.integers(0, len(one) - 1), max_size=4)):
        other[at] = draw(st.integers(0, 255))
    return name, one, bytes(other)


@given(sides(), st.integers(0, 1000))
def test_a_slice_is_what_float64_says(pair: tuple[str, bytes, bytes], start: int) -> None:
    """Count and first by bits; max |a − b|, ‖a − b‖ and ‖a‖ over what is finite in both, as NumPy has them."""
    name, one, other = pair
    size, dtype = FLOATS[name], DTYPES[name]
    bits = [np.frombuffer(data, f"u{size}") for data in (one, other)]
    differs = bits[0] != bits[1]
    a, b = (values(name, data) for data in pair[1:])
    finite = np.isfinite(a) & np.isfinite(b)

    part = part_of(start, dtype, view(one), dtype, view(other))

    assert part.differing == differs.sum()
    if not differs.any():
        return
    assert part.first == start + int(np.flatnonzero(differs)[0])
    assert part.nonfinite == (differs & ~finite).sum()
    with np.errstate(over="ignore", invalid="ignore"):  # ∞ − ∞, which is left out
        gap = np.abs(a - b, where=finite, out=np.zeros_like(a))
        assert part.max_abs == gap.max()
        assert part.difference_squared == pytest.approx(np.dot(gap, gap), rel=1e-12)
        sizes = np.where(finite, a, 0.0)
        assert part.a_squared == pytest.approx(np.dot(sizes, sizes), rel=1e-12)


@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E5M2", "F8_E4M3"])
def test_ulps_count_the_values_between(name: str) -> None:
    """From each finite value of a dtype to the next larger one it is 1 ulp, from −0 to 0 none."""
    size = FLOATS[name]
    every = np.arange(256**size, dtype=np.uint64).astype(f"<u{size}")
    numbers = values(name, every.tobytes())
    every, numbers = every[np.isfinite(numbers)], numbers[np.isfinite(numbers)]
    every = every[np.argsort(numbers, kind="stable")]
    ordered = np.sort(numbers, kind="stable")

    apart = ulps_apart(DTYPES[name], every[:-1], every[1:])

    assert apart is not None
    assert np.array_equal(apart, (np.diff(ordered) > 0).astype(apart.dtype))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_ulps_of_float64(a: float, b: float) -> None:
    """The distance over all 64 bits, the sign's included, is exact."""

    def key(value: float) -> int:
        bits = int(np.float64(abs(value)).view(np.uint64))
        return -bits if value < 0 else bits

    bits = [np.array([value]).view("<u8") for value in (a, b)]

    apart = ulps_apart(DTYPES["F64"], *bits)
    assert apart is not None
    assert int(apart[0]) == abs(key(a) - key(b))


@pytest.mark.parametrize(
    ("name", "a", "b", "apart"),
    [
        ("I8", -128, 127, 255),
        ("I64", -(2**63), 2**63 - 1, 2**64 - 1),
        ("U64", 0, 2**64 - 1, 2**64 - 1),
        ("U8", 3, 1, 2),
        ("I16", -5, 5, 10),
        ("BOOL", 0, 1, 1),
    ],
)
def test_whole_numbers_are_as_far_apart_as_they_are(name: str, a: int, b: int, apart: int) -> None:
    """For whole numbers the distance is |a − b|, without overflow."""
    size = DTYPES[name].itemsize
    data = [value.to_bytes(size, "little", signed=value < 0) for value in (a, b)]

    found = unlike(DTYPES[name], view(data[0]), view(data[1]))

    assert found is not None
    assert (found.ulps, found.count, found.first) == (apart, 1, 0)


def test_values_are_told_so_that_they_can_be_typed() -> None:
    """A float is its shortest decimal, a NaN its bits, a packed number its bits, a strange boolean its byte."""
    texts = {
        ("F32", b"\0\0\x80\x3f"): "1.0",
        ("F32", b"\0\0\xc0\x7f"): "nan (0x7fc00000)",
        ("BF16", b"\x80\xff"): "-inf",
        ("I16", b"\xff\xff"): "-1",
        ("BOOL", b"\1"): "True",
        ("BOOL", b"\2"): "0x02",
        ("C64", b"\0\0\x80\x3f\0\0\0\x40"): "(1+2j)",
        ("F8_E8M0", b"\x7f"): "0x7f",
        ("F4", b"\x21"): "0x21",
    }
    for (name, data), text in texts.items():
        assert value_text(DTYPES[name], data) == text, name


def test_parts_of_a_tensor_together() -> None:
    """Slices in any order give one deviation; ‖a‖ is of all of it, equal slices included."""
    a = torch.tensor([3.0, 4.0, 1.0], dtype=torch.float32).numpy().tobytes()
    b = torch.tensor([3.0, 4.0, 2.0], dtype=torch.float32).numpy().tobytes()
    kind = DTYPES["F32"]
    parts = [part_of(i, kind, view(a[4 * i : 4 * i + 4]), kind, view(b[4 * i : 4 * i + 4])) for i in range(3)]

    assert deviation(TensorSpec(kind, (3,)), TensorSpec(kind, (3,)), parts[:2]) is None
    found = deviation(TensorSpec(kind, (3,)), TensorSpec(kind, (3,)), reversed(parts))
    assert found is not None
    assert (found.differing, found.first, found.values) == (1, 2, ("1.0", "2.0"))


# --- two checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_the_figures_of_a_tensor(tmp_path: Path, threads: int) -> None:
    """Over several slices, most of them equal: all figures are those of the whole tensor, for any number of threads."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3 * differing.SLICE_ELEMENTS + 17, generator=generator)
    b = a.clone()
    b[differing.SLICE_ELEMENTS + 5] += 0.5
    b[-1] -= 0.25

    result = rsoup.diff(
        *files(tmp_path, {"w": a, "v": a[:9].clone()}, {"w": b, "v": a[:9].clone()}), threads=threads
    )

    assert result.equal == 1
    (row,) = result.tensors
    assert (row.name, row.kind) == ("w", "values")
    found = row.deviation
    assert found is not None
    gap = a.double() - b.double()
    assert (found.differing, found.first, found.numel) == (2, differing.SLICE_ELEMENTS + 5, len(a))
    assert found.max_abs == gap.abs().max().item()
    assert found.relative == pytest.approx((gap.norm() / a.double().norm()).item(), rel=1e-12)
    assert found.values == (repr(a[found.first].double().item()), repr(b[found.first].double().item()))


def test_every_kind_of_difference(tmp_path: Path) -> None:
    """Only in a, only in b, shape, dtype with and without other values, values; equal ones are counted."""
    x = torch.arange(6.0)
    a = {"alone": x, "shape": x, "dtype": x, "dtype, values": x, "values": x, "equal": x, "empty": x[:0]}
    b = {
        "also": x, "shape": x.reshape(2, 3), "dtype": x.to(torch.bfloat16), "dtype, values": (x + 0.25).double(),
        "values": x + 1, "equal": x, "empty": x[:0],
    }  # fmt: skip

    result = rsoup.diff(*files(tmp_path, a, b))

    assert {row.name: row.kind for row in result.tensors} == {
        "alone": "only in a", "also": "only in b", "shape": "shape", "dtype": "dtype", "dtype, values": "dtype", "values": "values",
    }  # fmt: skip
    rows = {row.name: row.deviation for row in result.tensors}
    assert rows["dtype"] is rows["shape"] is rows["alone"] is None
    assert rows["dtype, values"] is not None
    assert (rows["dtype, values"].differing, rows["dtype, values"].max_ulps) == (6, None)
    assert rows["dtype, values"].max_abs == 0.25
    assert rows["values"] is not None
    assert rows["values"].max_abs == 1.0
    assert result.equal == 2


def test_nan_is_told_apart(tmp_path: Path) -> None:
    """The same NaN is equal, another NaN or a number is not; sums are over what is finite; −0 and 0 differ by no ulp."""
    a = torch.tensor([math.nan, math.nan, 1.0, math.inf, 0.0, 2.0])
    b = torch.tensor([math.nan, 1.0, 1.5, math.inf, -0.0, 2.0])

    (row,) = rsoup.diff(*files(tmp_path, {"w": a}, {"w": b})).tensors

    found = row.deviation
    assert found is not None
    assert (found.differing, found.first, found.nonfinite) == (3, 1, 1)
    assert (found.max_abs, found.relative) == (0.5, 0.5 / math.sqrt(5))
    zeros = rsoup.diff(*files(tmp_path, {"w": a[4:5]}, {"w": b[4:5]})).tensors[0].deviation
    assert zeros is not None
    assert (zeros.differing, zeros.max_abs, zeros.relative, zeros.max_ulps) == (1, 0.0, 0.0, 0)
    assert rsoup.diff(*files(tmp_path, {"w": a}, {"w": a.clone()})).same


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float64]
)
def test_every_dtype_is_compared(tmp_path: Path, dtype: torch.dtype) -> None:
    """Whole numbers, booleans, complex ones, small and large floats: the one element that differs is found."""
    a = torch.tensor([1, 0, 1, 1]).to(dtype)
    b = a.clone()
    b[1] = 1

    (row,) = rsoup.diff(*files(tmp_path, {"w": a}, {"w": b})).tensors

    assert row.deviation is not None
    assert (row.deviation.differing, row.deviation.first, row.deviation.max_abs) == (1, 1, 1.0)
    assert row.deviation.relative == pytest.approx(1 / math.sqrt(3))


def test_packed_numbers_are_compared_by_bytes(tmp_path: Path) -> None:
    """Numbers of four bits have no value here: the byte that differs is found, its first element named."""
    for name, data in (("a", b"\x11\x22\x33"), ("b", b"\x11\x22\x43")):
        (tmp_path / f"{name}.safetensors").write_bytes(raw_safetensors({"w": record("F4", [6], 0, 3)}, data))

    (row,) = rsoup.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").tensors

    assert row.deviation is not None
    assert (row.deviation.differing, row.deviation.first, row.deviation.max_abs) == (1, 4, None)
    assert row.deviation.relative is row.deviation.max_ulps is None


def test_a_base_of_zeros_is_infinitely_far(tmp_path: Path) -> None:
    """‖a − b‖/‖a‖ for a = 0 is infinite, and null in JSON."""
    (row,) = rsoup.diff(*files(tmp_path, {"w": torch.zeros(3)}, {"w": torch.ones(3)})).tensors

    assert row.deviation is not None
    assert row.deviation.relative == math.inf


def test_shards_make_no_difference(tmp_path: Path) -> None:
    """The same tensors in one file and in three are equal, and so are a file and a folder."""
    tensors = related(1).base
    one, three = write_folder(tmp_path / "1", tensors), write_folder(tmp_path / "3", tensors, shards=3)

    assert rsoup.diff(one, three).same
    assert rsoup.diff(one / "model.safetensors", three).same
    assert rsoup.diff(one, one) == DiffResult(str(one), str(one), len(tensors), (), ())


def test_files_beside_the_weights(tmp_path: Path) -> None:
    """Files that differ are named, and the keys of config.json with both values; not with --tensor, nor for a file."""
    tensors = related(1).base
    a = write_folder(
        tmp_path / "a",
        tensors,
        config={"x": 1, "same": 2, "rope_theta": 1e4},
        side_files={"t.json": "1", "only.txt": "1"},
    )
    b = write_folder(tmp_path / "b", tensors, config={"x": 2, "same": 2, "y": 3, "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}, side_files={"t.json": "2"})  # fmt: skip

    result = rsoup.diff(a, b)

    assert [(row.name, row.kind) for row in result.files] == [
        ("config.json", "contents"),
        ("only.txt", "only in a"),
        ("t.json", "contents"),
    ]
    assert [key for key in result.files[0].keys if key[0] in "xy"] == [("x", 1, 2), ("y", None, 3)]
    assert not result.same
    assert rsoup.diff(a, b, tensors=["*"]).same
    assert rsoup.diff(a / "model.safetensors", b).same
    long = [b"x" * (3 << 20) + end for end in (b"a", b"b", b"")]
    for name, data in (("a", long[0]), ("b", long[1])):
        (tmp_path / name / "t.json").write_bytes(data)
    assert "t.json" in [row.name for row in rsoup.diff(a, b).files]
    (tmp_path / "b" / "t.json").write_bytes(long[2])
    assert "t.json" in [row.name for row in rsoup.diff(a, b).files]
    (tmp_path / "b" / "t.json").write_bytes(long[0])
    assert "t.json" not in [row.name for row in rsoup.diff(a, b).files]


def test_only_some_tensors(base_and_two: Folders) -> None:
    """--tensor takes globs, several of them; one that matches nothing is refused."""
    result = rsoup.diff(base_and_two.one, base_and_two.two, tensors=["layers.*", "scale"])

    assert [row.name for row in result.tensors] == ["layers.0.bias", "layers.0.weight", "scale"]
    with pytest.raises(UsageError) as error:
        rsoup.diff(base_and_two.one, base_and_two.two, tensors=["layers.*", "nothing"])
    assert error.value.code == "E0209"


def test_what_cannot_be_read_is_refused(base_and_two: Folders, tmp_path: Path) -> None:
    """Not there: 7; malformed: 8."""
    (tmp_path / "bad.safetensors").write_bytes(b"\x10")

    with pytest.raises(AccessError):
        rsoup.diff(base_and_two.one, tmp_path / "nowhere")
    with pytest.raises(RefusedFileError):
        rsoup.diff(tmp_path / "bad.safetensors", base_and_two.one)


def test_a_soup_and_its_ingredient(base_and_two: Folders) -> None:
    """diff and the manifest agree on how far a one-hot soup moved: not at all."""
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], mix=["1", "0"])
    rsoup.merge(recipe, base_and_two.root / "soup")

    assert rsoup.diff(base_and_two.one, base_and_two.root / "soup").same


def test_bits_of_sub_byte_numbers_are_their_bytes() -> None:
    """Three bytes of four-bit numbers are three numbers here."""
    assert bits_of(DTYPES["F4"], view(b"\1\2\3")).tolist() == [1, 2, 3]


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(warm: Warm, base_and_two: Folders) -> None:
    """Equal: a line and exit 0. Not: a table, the worst first, equal tensors in one line, exit 9."""
    same = warm.run("diff", "one", "one", cwd=base_and_two.root)
    run = warm.run("diff", "one", "two", cwd=base_and_two.root)

    assert (same.code, same.out, same.err) == (0, "one and one are equal: 6 tensors, to the last bit\n", "")
    assert (run.code, run.err) == (9, "")
    lines = run.out.splitlines()
    assert lines[0] == "one (a) and two (b) differ"
    assert lines[1].split() == ["values", "4", "tensors:"]
    assert lines[-1].split() == ["equal", "2", "tensors"]
    relative = [float(line.split()[5]) for line in lines[3:-1]]
    assert relative == sorted(relative, reverse=True)


def test_the_command_shows_the_worst_twenty(warm: Warm, tmp_path: Path) -> None:
    """Of thirty tensors the twenty farthest apart are shown; --json has all of them, -q their names."""
    a = {f"w{i:02}": torch.ones(8) for i in range(30)}
    b = {name: value + 0.01 * (i + 1) for i, (name, value) in enumerate(a.items())}
    files(tmp_path, a, b)
    arguments = ("diff", "a.safetensors", "b.safetensors")

    shown = warm.run(*arguments, cwd=tmp_path).out
    document = json.loads(warm.run(*arguments, "--json", cwd=tmp_path).out)
    quiet = warm.run(*arguments, "-q", cwd=tmp_path)

    assert "w29" in shown
    assert "w10" in shown
    assert "w09" not in shown
    assert "and 10 more" in shown
    assert (document["schema"], document["format"], document["same"], document["equal"]) == (
        1,
        "rsoup-diff/1",
        False,
        0,
    )
    assert len(document["tensors"]) == 30
    assert document["tensors"][3]["max_abs"] == pytest.approx(0.04, rel=1e-5)
    assert (quiet.code, quiet.out) == (9, "".join(f"{name}\n" for name in sorted(a)))


def test_json_has_a_word_for_everything(warm: Warm, tmp_path: Path) -> None:
    """Infinite and NaN figures are null; specs, first values and config keys are data."""
    a, b = (
        {"w": torch.zeros(2), "x": torch.ones(1)},
        {"w": torch.tensor([1.0, math.nan]), "x": torch.ones(1).half()},
    )
    write_folder(tmp_path / "a", a, config={"time_step_limit": [0.0, math.inf]})
    write_folder(tmp_path / "b", b)

    document = json.loads(warm.run("diff", "a", "b", "--json", cwd=tmp_path).out)

    rows = {row["name"]: row for row in document["tensors"]}
    assert rows["w"]["relative"] is None
    assert rows["w"]["first_values"] == {"a": "0.0", "b": "1.0"}
    assert rows["x"]["b"] == {"dtype": "F16", "shape": [1]}
    keys = {row["key"]: row for row in document["files"][0]["keys"]}
    assert keys["time_step_limit"]["a"] == [0.0, None]


@pytest.mark.parametrize(
    ("arguments", "code"), [(["one", "nowhere"], 7), (["one"], 2), (["one", "two", "--tensor", "x"], 2)]
)
def test_exit_codes(warm: Warm, base_and_two: Folders, arguments: list[str], code: int) -> None:
    """2 for a mistake, 7 for what is not there: never 9, which is an answer."""
    assert warm.run("diff", *arguments, cwd=base_and_two.root).code == code


@pytest.mark.fault("B1")
def test_names_are_shown_safely(warm: Warm, tmp_path: Path) -> None:
    """Control codes in a tensor's name reach no terminal, quiet or not."""
    files(tmp_path, {"a\x1b[31m": torch.zeros(1)}, {"a\x1b[31m": torch.ones(1), "b\n": torch.ones(1)})

    for options in ([], ["-q"], ["--json"]):
        out = warm.run("diff", "a.safetensors", "b.safetensors", *options, cwd=tmp_path).out
        assert "\x1b" not in out
        assert "b\n\n" not in out
