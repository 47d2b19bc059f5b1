"""The two backends: the same bits from NumPy and torch, and from the arithmetic of the twin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import arithmetic_twin as twin
import numpy as np
import pytest
import torch
from checkpoints import cooked, from_torch, related, write_file
from hypothesis import given
from hypothesis import strategies as st

import rsoup
from rsoup import backends
from rsoup.backends import Kind, make
from rsoup.storage.memory import MemorySource
from rsoup.tensors import DTYPES, TensorSpec

KINDS: tuple[Kind, ...] = ("numpy", "torch")
NAMES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
LARGEST = {name: DTYPES[name].maximum for name in NAMES}


def widened(kind: Kind, name: str, data: bytes) -> Any:
    """Stored bytes as float64 by a backend."""
    backend, dtype = make(kind), DTYPES[name]
    buffer = backend.buffer(len(data))
    backend.data(buffer)[:] = data
    out = backend.doubles(len(data) // dtype.itemsize)
    with backend.quiet():
        backend.widen(dtype, backend.view(buffer, dtype), out)
    return np.asarray(out)


def narrowed(kind: Kind, name: str, values: Any) -> bytes:
    """float64 as stored bytes by a backend."""
    backend, dtype = make(kind), DTYPES[name]
    wide, buffer = backend.doubles(len(values)), backend.buffer(len(values) * dtype.itemsize)
    wide[:] = torch.from_numpy(values) if kind == "torch" else values
    with backend.quiet():
        backend.narrow(dtype, wide, backend.view(buffer, dtype))
    return bytes(backend.data(buffer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_every_code_is_widened_exactly(kind: Kind, name: str) -> None:
    """All codes of the small formats become the float64 that torch says they are, and come back from it."""
    dtype = DTYPES[name]
    codes = np.arange(1 << dtype.bits).astype(f"<u{dtype.itemsize}").tobytes()
    expected = torch.frombuffer(bytearray(codes), dtype=dtype.torch).double().numpy()

    found = widened(kind, name, codes)

    assert np.array_equal(expected, found, equal_nan=True)
    assert np.array_equal(np.signbit(expected), np.signbit(found) | np.isnan(found) & np.signbit(expected))
    finite = np.isfinite(expected)
    back = np.frombuffer(narrowed(kind, name, found), f"<u{dtype.itemsize}")
    assert np.array_equal(back[finite], np.frombuffer(codes, f"<u{dtype.itemsize}")[finite])
    assert np.isnan(widened(kind, name, narrowed(kind, name, found))[np.isnan(expected)]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_rounding_is_that_of_the_twin(kind: Kind, name: str, data: st.DataObject) -> None:
    """float64 → float32 → the dtype, to nearest even, for normal, subnormal and halfway values."""
    largest = min(LARGEST[name], 3.4e38)
    values = np.array(data.draw(st.lists(st.floats(-largest, largest), min_size=1, max_size=40)))
    stored = twin.widen((name, twin.narrow(name, values)))
    with np.errstate(all="ignore"):
        halfway = np.nan_to_num((stored[:-1] + stored[1:]) / 2, nan=1.0, posinf=1.0, neginf=-1.0)
    probe = np.concatenate([values, halfway, np.nextafter(halfway, np.inf), values * 1e-8])

    assert narrowed(kind, name, probe) == twin.narrow(name, probe)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_of_many_elements_at_once(name: str) -> None:
    """What is done piece by piece in NumPy is what torch does at once, over every size of exponent."""
    rng = np.random.default_rng(0)
    size = min(LARGEST[name], 1e38)
    values = rng.normal(size=100_003) * 2.0 ** rng.uniform(-20, 20, size=100_003)
    values = np.clip(values, -size, size)

    assert narrowed("numpy", name, values) == narrowed("torch", name, values) == twin.narrow(name, values)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("based", [False, True])
def test_soups_do_not_depend_on_the_backend(
    dtype: torch.dtype, based: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes from NumPy and from torch, with a base and without, mixed dtypes and masks of −∞ too."""
    family = related(3, dtype=dtype)
    for tensors in (family.base, *family.tuned):
        tensors["mask"] = torch.full((3, 5), -torch.inf, dtype=dtype).triu(1)
    family.tuned[0]["scale"] = family.tuned[0]["scale"].float()
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    base = from_torch("base", family.base) if based else None
    recipe = rsoup.make_recipe(["a", "b", "c"], mix=["0.2", "0.5", "0.3"], base="base" if based else None)

    by_numpy = cooked(recipe, sources, base)
    monkeypatch.setattr(backends, "LARGE_NBYTES", 0)
    by_torch = cooked(recipe, sources, base)

    assert by_numpy == by_torch


def test_the_backend_depends_on_the_bytes_that_are_read_alone() -> None:
    """NumPy below the limit, torch from it on."""
    assert backends.kind_for(backends.LARGE_NBYTES - 1) == "numpy"
    assert backends.kind_for(backends.LARGE_NBYTES) == "torch"


def test_small_checkpoints_are_mixed_checked_and_verified_without_torch(tmp_path: Path) -> None:
    """merge, check, diff and verify of small safetensors files load no torch: it takes longer than they do."""
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


def test_what_numpy_has_no_dtype_for_is_bits(tmp_path: Path) -> None:
    """Complex and packed tensors are carried as bytes by both backends."""
    data = bytes(range(64))
    spec = TensorSpec(DTYPES["C64"], (8,))
    source = MemorySource("one", {"z": (spec, data)})

    assert cooked(rsoup.make_recipe(["a"], mix=["1"]), [source])["z"] == data
