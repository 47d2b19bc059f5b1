"""The two backends: the same bits from NumPy and from the compiled passes, those of the arithmetic's twin."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arithmetic_twin as twin
import numpy as np
import pytest
import torch
from checkpoints import cooked, from_torch, related, write_file
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_128

import rsoup
from rsoup import pot
from rsoup.backends import Backend, Row, make
from rsoup.backends.elements import narrow, typed, widened
from rsoup.backends.passes import BLOCK, CHUNK_NBYTES, CODES, LANES, SHORT_NBYTES, space_nbytes
from rsoup.digests import CHUNK_BYTES
from rsoup.storage.memory import MemorySource
from rsoup.tensors import DTYPES, DType, TensorSpec

compiled: Any = pytest.importorskip("rsoup.backends.compiled", reason="this installation found no C compiler")

SETS = ("plain", "avx2", "avx512")
NAMES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
PASSES = NAMES[:4]
LARGEST = {name: DTYPES[name].maximum for name in NAMES}
SIZES = (0, 1, LANES - 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 77)


def test_the_passes_are_those_of_the_source_beside_them() -> None:
    """In a checkout a change of compiled.c asks for another `pip install -e .`."""
    source = Path(compiled.__file__).parent / "compiled.c"
    if not source.exists():
        pytest.skip("this is no checkout")
    assert Path(compiled.__file__).stat().st_mtime >= source.stat().st_mtime, "pip install -e . once more"


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every set of instructions that this processor has, and the best one again afterwards."""
    if not compiled.use(request.param):
        pytest.skip(f"this processor or compiler has no {request.param}")
    yield request.param
    assert any(compiled.use(name) for name in reversed(SETS))


def stored(name: str, values: Any) -> Row:
    """float64 as stored elements."""
    dtype = DTYPES[name]
    data = memoryview(bytearray(len(values) * dtype.itemsize))
    with np.errstate(all="ignore"):
        narrow(dtype, np.asarray(values, dtype=np.float64), typed(dtype, data))
    return dtype, data


def rounded(backend: Backend, name: str, values: Any) -> bytes:
    """float64 as stored bytes by a backend: the soup of one checkpoint with coefficient 1."""
    dtype = DTYPES[name]
    out = memoryview(bytearray(len(values) * dtype.itemsize))
    backend.mix([stored("F64", values)], [1.0], dtype, out)
    return bytes(out)


def made(backend: Backend, rows: list[Row], shares: list[float], dtype: DType) -> tuple[bytes, float, float]:
    """A soup's bytes, the largest magnitude and the squared error."""
    out = memoryview(bytearray(len(rows[0][1]) // rows[0][0].itemsize * dtype.itemsize))
    return bytes(out), *backend.mix(rows, shares, dtype, out, measured=True)


def drawn(rng: np.random.Generator, name: str, count: int) -> Row:
    """Numbers of very different sizes, subnormal ones among them."""
    smallest = {"F16": -30, "BF16": -140}.get(name, -145)
    values = rng.normal(size=count) * 2.0 ** rng.integers(smallest, 10, size=count)
    return stored(name, values * (rng.random(size=count) > 0.1))


@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_every_code_is_widened_exactly(name: str) -> None:
    """All codes of the small formats become the float64 that torch says they are, and come back from it."""
    dtype = DTYPES[name]
    codes = np.arange(1 << dtype.bits).astype(f"<u{dtype.itemsize}").tobytes()
    expected = torch.frombuffer(bytearray(codes), dtype=dtype.torch).double().numpy()

    found = widened((dtype, memoryview(codes)))

    assert np.array_equal(expected, found, equal_nan=True)
    assert np.array_equal(np.signbit(expected), np.signbit(found) | np.isnan(found) & np.signbit(expected))
    finite = np.isfinite(expected)
    back = np.frombuffer(rounded(make("numpy"), name, found), f"<u{dtype.itemsize}")
    assert np.array_equal(back[finite], np.frombuffer(codes, f"<u{dtype.itemsize}")[finite])
    assert np.isnan(widened((dtype, memoryview(back).cast("B")))[np.isnan(expected)]).all()


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_every_code_is_compiled_exactly(name: str, instructions: str) -> None:
    """All codes of the small formats, infinities and NaN among them, are widened and rounded as NumPy does."""
    dtype = DTYPES[name]
    codes = memoryview(np.arange(1 << 16).astype("<u2").tobytes())

    wide = memoryview(bytearray(8 << 16))
    make("compiled").mix([(dtype, codes)], [1.0], DTYPES["F64"], wide)

    found = np.frombuffer(wide, np.float64)
    assert np.array_equal(widened((dtype, codes)), found, equal_nan=True)
    back = np.frombuffer(rounded(make("compiled"), name, found), "<u2")
    finite = ~np.isnan(found)
    assert np.array_equal(back[finite], np.frombuffer(codes, "<u2")[finite]), instructions
    assert np.isnan(widened((dtype, memoryview(back).cast("B")))[~finite]).all()


@pytest.mark.parametrize("kind", ["numpy", *SETS])
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_rounding_is_that_of_the_twin(kind: str, name: str, data: st.DataObject) -> None:
    """float64 → float32 → the dtype, to nearest even, for normal, subnormal and halfway values."""
    if kind != "numpy" and not compiled.use(kind):
        pytest.skip(f"this processor or compiler has no {kind}")
    backend = make("numpy" if kind == "numpy" else "compiled")
    largest = min(LARGEST[name], 3.4e38)
    values = np.array(data.draw(st.lists(st.floats(-largest, largest), min_size=1, max_size=40)))
    codes = twin.widen((name, twin.narrow(name, values)))
    with np.errstate(all="ignore"):
        halfway = np.nan_to_num((codes[:-1] + codes[1:]) / 2, nan=1.0, posinf=1.0, neginf=-1.0)
    probe = np.concatenate([values, halfway, np.nextafter(halfway, np.inf), values * 1e-8, values * 1e-39])

    assert rounded(backend, name, probe) == twin.narrow(name, probe)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_of_many_elements_at_once(name: str, instructions: str) -> None:
    """What is done piece by piece is what torch does at once, over every size of exponent."""
    rng = np.random.default_rng(0)
    size = min(LARGEST[name], 1e38)
    values = np.clip(rng.normal(size=100_003) * 2.0 ** rng.uniform(-20, 20, size=100_003), -size, size)
    by_torch = (
        torch.from_numpy(values).float().to(DTYPES[name].torch) if name != "F64" else torch.from_numpy(values)
    )

    expected = by_torch.view(torch.uint8).numpy().tobytes()

    assert expected == rounded(make("numpy"), name, values), instructions
    assert expected == rounded(make("compiled"), name, values)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(
    "names", [("BF16",) * 4, ("F16",) * 3, ("F32", "F16", "BF16", "F64"), ("F8_E4M3", "BF16")]
)
def test_passes_give_the_bits_of_numpy(names: tuple[str, ...], count: int, instructions: str) -> None:
    """Soups, their rounding errors and inner products, sums included, are NumPy's to the last bit, whatever computes."""
    rng = np.random.default_rng(count)
    rows = [drawn(rng, name, count) for name in names]
    shares = [0.1, 0.3, 1 / 3, -0.7][: len(rows)]
    ours, theirs = make("compiled"), make("numpy")

    for name in PASSES:
        assert made(theirs, rows, shares, DTYPES[name]) == made(ours, rows, shares, DTYPES[name]), (
            instructions
        )
    assert theirs.products(rows) == ours.products(rows)
    assert [theirs.largest(row) for row in rows] == [ours.largest(row) for row in rows]


@pytest.mark.parametrize("backend", [make("numpy"), make("compiled")], ids=["numpy", "compiled"])
def test_a_product_is_rounded_before_it_is_added(backend: Backend, instructions: str) -> None:
    """No fused multiply-add: its one rounding would give other last bits on other processors."""
    one = 1 + 2.0**-27
    values = stored("F64", np.full(1000, one))
    fused = math.fsum([one * one - 1.0, 2.0**-54]) - (
        one * one - 1.0
    )  # what the rounding of the product loses

    out = memoryview(bytearray(8000))
    backend.mix([stored("F64", np.full(1000, -(one * one))), values], [1.0, one], DTYPES["F64"], out)

    assert fused != 0.0, instructions
    assert not np.frombuffer(out, np.float64).any()


@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf, -7.0])
def test_the_largest_magnitude_tells_of_nan(value: float, instructions: str) -> None:
    """NaN is beyond infinity, wherever it stands and whatever its sign: nothing that is not finite slips through."""
    values = np.ones(3 * BLOCK)
    for at in (0, BLOCK + 3, len(values) - 1):
        values[at] = value
        rows = [stored("F32", values), stored("F32", np.ones(3 * BLOCK))]
        for backend in (make("numpy"), make("compiled")):
            largest = made(backend, rows, [0.5, 0.5], DTYPES["F32"])[1]
            assert (
                math.isnan(largest)
                if math.isnan(value)
                else largest == abs(0.5 * value + 0.5) or largest == math.inf
            ), instructions
            assert (
                backend.largest(rows[0]) == abs(value)
                or math.isnan(value) is math.isnan(backend.largest(rows[0])) is True
            )
        values[at] = 1.0


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
@pytest.mark.parametrize("rows", [2, 3, 6, 255])
@pytest.mark.parametrize("signed", [True, False])
def test_counts_are_those_of_numpy(itemsize: int, rows: int, signed: bool, instructions: str) -> None:
    """Changed, unique, shared, conflicting: the same numbers of bits that differ here and there, signs too."""
    rng = np.random.default_rng(rows * itemsize)
    count = 3 * 128 + 5
    reference = rng.integers(0, 256, size=(count, itemsize), dtype=np.uint8)
    data = []
    for _ in range(rows - 1):
        changed = reference.copy()
        where = rng.random(count) < 0.4
        changed[where] = rng.integers(0, 256, size=(int(where.sum()), itemsize), dtype=np.uint8)
        changed[:128] = reference[:128] if rows < 6 else changed[:128]
        data.append(changed.data.cast("B"))
    views = [*data, reference.data.cast("B")]

    found = make("compiled").counts(views, itemsize, signed=signed)

    assert found == make("numpy").counts(views, itemsize, signed=signed), instructions
    assert found[-1] == 0 or signed


def test_more_rows_than_a_pass_counts_are_numpys() -> None:
    """From 256 rows on NumPy counts, and where there is but one; a soup has no such limit."""
    assert make("compiled").counts([memoryview(b"1")], 1, signed=True) == [0, 0, 0]
    views = [memoryview(bytes([i % 7])) for i in range(300)]

    assert make("compiled").counts(views, 1, signed=True) == make("numpy").counts(views, 1, signed=True)
    rows = [stored("BF16", [float(i)]) for i in range(300)]
    shares = [1 / 300] * 300
    for name in ("BF16", "F64"):
        assert made(make("compiled"), rows, shares, DTYPES[name]) == made(
            make("numpy"), rows, shares, DTYPES[name]
        )


WORD = memoryview(bytearray(16))[::1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: compiled.mix(b"\0\0", [WORD], [1.0], 0, WORD, False),
        lambda: compiled.mix(b"\0", [WORD], [1.0, 2.0], 0, WORD, False),
        lambda: compiled.mix(b"\0", [WORD], [1.0], 0, memoryview(bytearray(8)), False),
        lambda: compiled.mix(b"\0", [WORD], [1.0], 9, WORD, False),
        lambda: compiled.mix(b"\7", [WORD], [1.0], 0, WORD, False),
        lambda: compiled.mix(b"", [], [], 0, memoryview(bytearray()), False),
        lambda: compiled.mix(b"\0", [WORD[1:9]], [1.0], 0, memoryview(bytearray(8)), False),
        lambda: compiled.products(b"\0\1", [WORD, WORD]),
        lambda: compiled.products(b"\1", [WORD[:3]]),
        lambda: compiled.counts(3, [WORD, WORD]),
        lambda: compiled.counts(2, [WORD]),
        lambda: compiled.counts(2, [WORD, WORD[:4]]),
        lambda: compiled.counts(1, [WORD] * 256),
    ],
)
def test_passes_look_at_what_they_get(call: Any) -> None:
    """Rows of different lengths, unknown codes, bytes out of line: an error, never memory that is not theirs."""
    with pytest.raises(ValueError, match=r"rows|code|dtype|line|elements"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: compiled.mix(b"\0", [WORD], ["x"], 0, WORD, False),
        lambda: compiled.mix(b"\0", [WORD], [1], 0, WORD, False),
        lambda: compiled.mix(b"\0", [3], [1.0], 0, WORD, False),
        lambda: compiled.mix(b"\0", [WORD], [1.0], 0, b"0123456789abcdef", False),
        lambda: compiled.largest(b"\0", (WORD,)),
    ],
)
def test_passes_take_lists_of_buffers(call: Any) -> None:
    """Anything else is a TypeError."""
    with pytest.raises((TypeError, BufferError)):
        call()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("method", "based"), [("linear", False), ("linear", True), ("slerp", True)])
def test_soups_do_not_depend_on_the_backend(
    dtype: torch.dtype, method: str, based: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes compiled and from NumPy, angles and sums included, mixed dtypes and masks of −∞ too."""
    family = related(3 if method == "linear" else 2, dtype=dtype)
    for tensors in (family.base, *family.tuned):
        tensors["mask"] = torch.full((3, 5), -torch.inf, dtype=dtype).triu(1)
    family.tuned[0]["scale"] = family.tuned[0]["scale"].float()
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    base = from_torch("base", family.base) if based else None
    mix = ["0.2", "0.5", "0.3"] if method == "linear" else ["0.3", "0.7"]
    recipe = rsoup.make_recipe(
        ["a", "b", "c"][: len(mix)], mix=mix, base="base" if based else None, method=method
    )

    ours = cooked(recipe, sources, base)
    monkeypatch.setattr(pot, "make", lambda: make("numpy"))
    theirs = cooked(recipe, sources, base)

    assert ours == theirs


def test_small_and_large_checkpoints_are_mixed_checked_and_verified_without_torch(tmp_path: Path) -> None:
    """merge, check, diff and verify of safetensors files load no torch: it takes longer than they do."""
    family = related(2)
    for name, tensors in (("base", family.base), ("a", family.tuned[0]), ("b", family.tuned[1])):
        write_file(tmp_path / f"{name}.safetensors", tensors)
    base, a, b, out = (str(tmp_path / f"{name}.safetensors") for name in ("base", "a", "b", "out"))
    lines = (
        ["merge", a, b, "--base", base, "--lambda", "0.3,0.7", "-o", out, "-q"],
        ["check", a, b, "--base", base, "-q"],
        ["diff", a, b, "-q"],
        ["verify", out, a, b, "--base", base, "--rederive", "-q"],
        ["verify", out, a, b, "--base", base, "--sample", "4", "-q"],
    )
    code = "import sys; from rsoup.cli import main; sys.argv[0] = 'rsoup'\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"

    for words in lines:
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1] == "False", (words, done.stderr)
        assert done.returncode in (0, 9), done.stderr


def test_an_installation_without_compiled_passes_makes_the_same_soup(tmp_path: Path) -> None:
    """Where no C compiler was found, or the passes are another version's, NumPy computes."""
    family = related(2)
    for name, tensors in (("a", family.tuned[0]), ("b", family.tuned[1])):
        write_file(tmp_path / f"{name}.safetensors", tensors)
    a, b = (str(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    results = []
    for number, before in enumerate(
        (
            "",
            "sys.modules['rsoup.backends.compiled'] = None",
            "sys.modules['rsoup.backends.compiled'] = type(sys)('compiled'); sys.modules['rsoup.backends.compiled'].VERSION = 0",
        )
    ):
        out = str(tmp_path / f"{number}.safetensors")
        code = f"import sys\n{before}\nfrom rsoup.backends import make\nprint(make().name, file=sys.stderr)\nfrom rsoup.cli import main\nsys.argv[0] = 'rsoup'\nmain()"
        words = ["merge", a, b, "--lambda", "0.3,0.7", "-o", out, "-q"]
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
        )
        results.append((done.stderr.split()[0], Path(out).read_bytes()))

    assert [name for name, _ in results] == ["compiled", "numpy", "numpy"]
    assert results[0][1] == results[1][1] == results[2][1]


def test_what_numpy_has_no_dtype_for_is_bits() -> None:
    """Complex and packed tensors are carried as bytes by both backends."""
    data = bytes(range(64))
    spec = TensorSpec(DTYPES["C64"], (8,))
    source = MemorySource("one", {"z": (spec, data)})

    assert cooked(rsoup.make_recipe(["a"], mix=["1"]), [source])["z"] == data


GO = bytearray(1)


def bytes_of(count: int) -> bytes:
    """Bytes without a pattern, the same every time."""
    return np.random.default_rng(count).bytes(count)


def fingerprints(data: bytes) -> bytes:
    """The digests of chunks of more than 240 bytes, by the hash's own library."""
    chunks = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    return b"".join(xxh3_128(chunk).digest() for chunk in chunks if len(chunk) > SHORT_NBYTES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, bytes]]:
    """An open file of a bit over 3 MiB, and its bytes."""
    path, data = tmp_path_factory.mktemp("weights") / "weights", bytes_of(3 * CHUNK_BYTES + 4711)
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    yield fd, data
    os.close(fd)


CHUNK_SIZES = (1, 2, 63, 64, 65, 240, 241, 255, 256, 257, 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049,
               CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES + 63, CHUNK_BYTES + 300, 3 * CHUNK_BYTES)  # fmt: skip


@pytest.mark.parametrize("step", [1024, 3 * 1024, 1 << 17, CHUNK_BYTES, 2 * CHUNK_BYTES])
def test_what_is_gathered_is_in_the_file_and_its_digests_are_those_of_xxhash(
    weights: tuple[int, bytes], step: int, instructions: str
) -> None:
    """Of any length, in steps of any whole blocks, from any byte on: the bytes of the file, XXH3-128 of its chunks."""
    fd, data = weights
    gather = make("compiled").gather
    assert gather is not None
    for size in CHUNK_SIZES:
        begins = (size % 3 + 1, 0)
        chunks = bytearray(CHUNK_NBYTES * 2)
        found, read = [b"", b""], [b"", b""]
        for start in range(0, size, step):
            count = min(step, size - start)
            rows = [memoryview(bytearray(count)) for _ in begins]
            places = tuple((fd, begin) for begin in begins)
            digests = gather(GO, places, start, count, chunks, start + count == size, b"\1\1", rows)
            found = [one + more for one, more in zip(found, digests, strict=True)]
            read = [one + bytes(more) for one, more in zip(read, rows, strict=True)]

        wanted = [data[begin : begin + size] for begin in begins]
        assert read == wanted, (size, instructions)
        assert found == [fingerprints(part) for part in wanted], (size, instructions)


@pytest.mark.parametrize("names", [("BF16",) * 4, ("F16", "F32", "F64"), ("F32",), ("BF16",) * 70])
@pytest.mark.parametrize("to", ["F32", "F16", "BF16", "F64"])
@pytest.mark.parametrize("count", [1, BLOCK + 1, 70_001, 300_000])
def test_a_mix_of_gathered_rows_is_the_mix_of_the_rows(
    weights: tuple[int, bytes], names: tuple[str, ...], to: str, count: int
) -> None:
    """`gather_mix` gives the bits, the largest sum and the digests of `gather` and `mix`, whatever is in the files."""
    fd, _ = weights
    backend = make("compiled")
    gather, gather_mix = backend.gather, backend.gather_mix
    assert gather is not None
    assert gather_mix is not None
    dtypes = [DTYPES[name] for name in names]
    places = tuple((fd, 8 * i) for i in range(len(names)))
    shares = [1 / (i + 3) for i in range(len(names))]
    rows = [memoryview(bytearray(count * dtype.itemsize)) for dtype in dtypes]
    outs = [memoryview(bytearray(count * DTYPES[to].itemsize)) for _ in range(2)]
    space = memoryview(bytearray(space_nbytes(len(names))))
    chunks = [bytearray(CHUNK_NBYTES * len(names)) for _ in range(2)]

    wanted = gather(GO, places, 0, count, chunks[0], True, bytes([dtype.itemsize for dtype in dtypes]), rows)
    largest, _ = backend.mix(list(zip(dtypes, rows, strict=True)), shares, DTYPES[to], outs[0])
    codes = bytes([CODES[name] for name in names])
    found, most = gather_mix(GO, places, 0, count, chunks[1], True, codes, shares, space, CODES[to], outs[1])

    assert (outs[0], wanted) == (outs[1], found)
    assert largest == most or math.isnan(largest) is math.isnan(most) is True


def test_what_is_not_read_to_its_end_changes_no_chunk(tmp_path: Path) -> None:
    """EOFError, OSError where it cannot be read, InterruptedError: what was known of the chunks is what it was."""
    (tmp_path / "short").write_bytes(bytes_of(5000))
    fd = os.open(tmp_path / "short", os.O_RDONLY)
    chunks = bytearray(CHUNK_NBYTES * 2)
    rows = [memoryview(bytearray(2048)) for _ in range(2)]
    out, space = memoryview(bytearray(2048)), memoryview(bytearray(space_nbytes(2)))
    try:
        compiled.gather(GO, ((fd, 0), (fd, 1)), 0, 2048, chunks, False, b"\1\1", rows)
        before = bytes(chunks)
        assert any(before)
        for places, error in ((((fd, 0), (fd, 4000)), EOFError), (((fd, 0), (10**6, 0)), OSError)):
            with pytest.raises(error):
                compiled.gather(GO, places, 0, 2048, chunks, False, b"\1\1", rows)
            with pytest.raises(error):
                compiled.gather_mix(GO, places, 0, 1024, chunks, False, b"\3\3", [0.5, 0.5], space, 3, out)
            assert bytes(chunks) == before
        with pytest.raises(InterruptedError):
            compiled.gather(b"\1", ((fd, 0), (fd, 1)), 0, 2048, chunks, False, b"\1\1", rows)
        assert bytes(chunks) == before
    finally:
        os.close(fd)


def test_gathering_stops_between_two_reads(weights: tuple[int, bytes]) -> None:
    """A long reading ends soon after the stop byte is set, in the middle of it."""
    row, stop = memoryview(bytearray(CHUNK_BYTES)), bytearray(1)
    places, rows = (
        ((weights[0], 0),) * 60_000,
        [row] * 60_000,
    )  # 60 GB, which no machine reads in a tenth of a second
    threading.Timer(0.1, stop.__setitem__, (0, 1)).start()

    with pytest.raises(InterruptedError):
        compiled.gather(stop, places, 0, CHUNK_BYTES, None, True, b"\1" * len(rows), rows)

    assert stop == b"\1"


def test_gathering_looks_at_what_it_gets(weights: tuple[int, bytes]) -> None:
    """Rows, places, chunks and room that do not fit together are errors, never memory that is not theirs."""
    here, row = ((weights[0], 0),), memoryview(bytearray(1024))
    space, none = memoryview(bytearray(space_nbytes(1))), bytearray(CHUNK_NBYTES)
    wrong = bytearray(none)
    wrong[64] = 1  # a chunk of one byte, which is no whole block
    calls: list[tuple[Any, ...]] = [
        (here, 0, 1024, None, True, b"\1", [row, row]),
        (here, 0, 1024, None, True, b"\1\1", [row, row]),
        (here, 0, 1023, None, True, b"\1", [row]),
        (here, -1, 1024, None, True, b"\1", [row]),
        (here, 0, 0, None, True, b"\1", [row[:0]]),
        (here, 0, 1000, none, False, b"\1", [row[:1000]]),
        (here, 0, 1024, none[1:], True, b"\1", [row]),
        (here, 0, 1024, wrong, True, b"\1", [row]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"row|read|block|chunk"):
            compiled.gather(GO, *call)
    mixes: list[tuple[Any, ...]] = [
        (here, 0, 512, None, True, b"\7", [1.0], space, 3, row),
        (here, 0, 512, None, True, b"\3", [1.0], space, 9, row),
        (here, 0, 512, None, True, b"\3\3", [1.0], space, 3, row),
        (here, 0, 512, None, True, b"\3\3", [1.0, 1.0], space, 3, row),
        (here, 0, 511, None, True, b"\3", [1.0], space, 3, row),
        (here, 0, 512, None, True, b"\3", [1.0], space[:1000], 3, row),
        (here, 0, 512, None, True, b"\3", [1.0], space[1:], 3, row),
        (here, 0, 512, none[1:], True, b"\3", [1.0], space, 3, row),
    ]
    for call in mixes:
        with pytest.raises(ValueError, match=r"row|dtype|space|chunk"):
            compiled.gather_mix(GO, *call)
    for call in [
        (here, 0, 1024, None, True, b"\1", [bytes(1024)]),
        ((3,), 0, 1024, None, True, b"\1", [row]),
    ]:
        with pytest.raises((TypeError, BufferError)):
            compiled.gather(GO, *call)
