"""Weights read at once by the compiled passes, and source by source: the same bytes, fingerprints and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import related, tree, write_file, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

import rsoup
from rsoup import reading
from rsoup.backends import make
from rsoup.digests import CHUNK_BYTES
from rsoup.errors import RefusedFileError, RsoupError
from rsoup.reading import Reading
from rsoup.storage.checkpoint import open_checkpoint

pytest.importorskip("rsoup.backends.compiled", reason="this installation found no C compiler")

Tensors = dict[str, torch.Tensor]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def both_ways(recipe: rsoup.Recipe, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a merge leaves behind, or its error, read at once and source by source."""
    found: list[Any] = []
    for name, places in (("at-once", reading._places), ("one-by-one", lambda *_: None)):
        monkeypatch.setattr(reading, "_places", places)
        try:
            rsoup.merge(recipe, folder / name, threads=2)
        except RsoupError as error:
            found.append((error.code, str(error)))
        else:
            files: dict[str, Any] = dict(tree(folder / name))
            manifest = json.loads(files["rsoup.json"])
            del manifest["run"]
            found.append(files | {"rsoup.json": manifest})
    return found


def odd(seed: int, dtype: torch.dtype) -> Tensors:
    """Tensors of sizes at which something ends: nothing, one element, short chunks, whole chunks and a bit more."""
    generator = torch.Generator().manual_seed(seed)
    itemsize = torch.empty(0, dtype=dtype).itemsize
    chunk = CHUNK_BYTES // itemsize
    sizes = (0, 1, 240 // itemsize, 240 // itemsize + 1, chunk - 1, chunk, chunk + 1, 2 * chunk + 240 // itemsize, 5 * chunk + 999)  # fmt: skip
    shared = torch.Generator().manual_seed(0)
    return {
        f"w{size}": (torch.randn(size, generator=shared) + 0.01 * torch.randn(size, generator=generator)).to(
            dtype
        )
        for size in sizes
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("method", "based"), [("linear", False), ("linear", True), ("slerp", True)])
def test_the_soup_and_its_manifest_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, based: bool, method: str
) -> None:
    """Every byte, every digest of what was read, every distance."""
    for i in range(3):
        write_folder(tmp_path / f"c{i}", odd(i, dtype), shards=2)
    recipe = rsoup.make_recipe(
        [str(tmp_path / "c1"), str(tmp_path / "c2")],
        mix=["0.3", "0.7"],
        base=str(tmp_path / "c0") if based else None,
        method=method,
    )

    at_once, one_by_one = both_ways(recipe, tmp_path, monkeypatch)

    assert at_once == one_by_one
    assert isinstance(at_once, dict), at_once


@pytest.mark.parametrize("to", ["float32", "bfloat16", "float16", "float64"])
def test_mixed_dtypes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """Each ingredient in a dtype of its own, the soup in another."""
    for i, dtype in enumerate(DTYPES):
        write_folder(tmp_path / f"c{i}", odd(i, torch.float32) | {"x": torch.ones(3000, dtype=dtype)})  # fmt: skip
    recipe = rsoup.make_recipe([str(tmp_path / f"c{i}") for i in range(4)], uniform=True, dtype=to)

    at_once, one_by_one = both_ways(recipe, tmp_path, monkeypatch)

    assert at_once == one_by_one


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one, _: one["w"].__setitem__(1_500_000, torch.nan),
        lambda one, _: one["w"].__setitem__(7, torch.inf),
        lambda one, two: (one["w"].__setitem__(-1, 65504.0), two["w"].__setitem__(-1, 65504.0)),
        lambda one, two: (one["w"].__setitem__(3, -torch.inf), two["w"].__setitem__(3, -torch.inf)),
    ],
    ids=["nan", "infinity", "largest", "shared"],
)
@pytest.mark.parametrize("shares", [["0.5", "0.5"], ["-1", "2"]])
def test_what_is_not_finite_is_found_in_the_same_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Tensors, Tensors], object],
    shares: list[str],
) -> None:
    """A sum that is too large, or no number, is looked for in the rows: refused in the same words, or carried over."""
    one, two = ({"w": torch.full((2_000_000,), 0.5 + i, dtype=torch.float16)} for i in range(2))
    spoil(one, two)
    if shares[0] == "-1":
        two["w"][-1] *= -1
    for name, tensors in (("one", one), ("two", two)):
        write_folder(tmp_path / name, tensors)
    mix = {"mix": shares, "affine": True, "base": str(tmp_path / "one")} if shares[0] == "-1" else {"mix": shares}  # fmt: skip
    recipe = rsoup.make_recipe([str(tmp_path / "one"), str(tmp_path / "two")], **mix)  # type: ignore[arg-type]

    at_once, one_by_one = both_ways(recipe, tmp_path, monkeypatch)

    assert at_once == one_by_one


def test_other_formats_and_views_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes, missing tensors from the base, torch files, transposed tensors, fewer rows: at once or not, the same."""
    base, (one, two, three) = related(3)
    name = next(key for key, value in one.items() if value.is_floating_point() and value.dim() == 2)
    write_file(tmp_path / "base.safetensors", base)
    write_file(tmp_path / "one.safetensors", {f"module.{key}": value for key, value in one.items()})
    write_file(
        tmp_path / "two.safetensors", {key: value for key, value in two.items() if key == name or "0" in key}
    )
    torch.save({**three, name: three[name].t().contiguous().t()}, tmp_path / "three.pt")
    recipe = rsoup.make_recipe(
        [str(tmp_path / f"{file}") for file in ("one.safetensors", "two.safetensors", "three.pt")],
        uniform=True,
        base=str(tmp_path / "base.safetensors"),
        missing="base",
    )

    at_once, one_by_one = both_ways(recipe, tmp_path, monkeypatch)

    assert at_once == one_by_one
    assert isinstance(at_once, dict), at_once


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_slices_of_any_tensor_are_what_the_sources_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Rows in slices of whole blocks, of checkpoints at any offset: the bytes and the fingerprints."""
    size = data.draw(st.integers(1, 40_000))
    step = 512 * data.draw(st.sampled_from([1, 3, 8, 64]))
    folder = tmp_path_factory.mktemp("slices")
    values = [torch.randn(size, generator=torch.Generator().manual_seed(i)).bfloat16() for i in range(2)]
    for i, value in enumerate(values):
        write_file(
            folder / f"{i}.safetensors",
            {"a": torch.ones(data.draw(st.integers(0, 9)), dtype=torch.uint8), "w": value},
        )
    sources = [open_checkpoint(str(folder / f"{i}.safetensors")) for i in range(2)]
    found = []
    for kind in ("compiled", "numpy"):
        read = Reading(sources, "w", size, make(kind), fingerprints=True)
        assert read.mixes is (kind == "compiled")
        rows = [b"", b""]
        for start in range(0, size, step):
            count = min(step, size - start)
            buffers = [memoryview(bytearray(2 * count)) for _ in sources]
            rows = [
                row + bytes(part)
                for row, (_, part) in zip(rows, read.rows(start, count, buffers), strict=True)
            ]
        found.append((rows, read.digests()))
    for source in sources:
        source.close()

    assert found[0] == found[1]
    assert found[0][0] == [value.view(torch.uint8).numpy().tobytes() for value in values]


def test_a_closed_checkpoint_has_no_places(tmp_path: Path) -> None:
    """The number of a closed file may by now be another file's: nothing is read from it."""
    write_file(tmp_path / "one.safetensors", {"w": torch.ones(1000)})
    source = open_checkpoint(str(tmp_path / "one.safetensors"))
    assert source.place("w") is not None
    source.close()

    with pytest.raises(ValueError, match="closed"):
        source.place("w")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(5, "Input/output error"), "E0806", r"'w' failed for a moment.*Input/output error"),
        (EOFError("incomplete"), "E0804", r"'w' found a file cut short"),
    ],
)
def test_a_disk_that_fails_for_a_moment_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, said: str
) -> None:
    """Where the second look finds nothing wrong, the first one's error is still told."""
    write_file(tmp_path / "one.safetensors", {"w": torch.ones(1000)})
    source = open_checkpoint(str(tmp_path / "one.safetensors"))
    backend = make("compiled")

    def fails(*_: object) -> list[bytes]:
        raise error

    monkeypatch.setattr(type(backend), "gather", staticmethod(fails))

    with pytest.raises(RefusedFileError, match=said) as caught:
        Reading([source], "w", 1000, backend).rows(0, 1000, [memoryview(bytearray(4000))])
    source.close()

    assert caught.value.code == code
