"""Many soups of one reading: each is what it would be alone, byte for byte, whatever the checkpoints are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import related, tree, write_folder

import rsoup
from rsoup import reading
from rsoup.backends import make
from rsoup.errors import IncompatibleError, TargetError
from rsoup.merging import merge, merge_many
from rsoup.recipe import Recipe
from rsoup.storage.checkpoint_source import CheckpointSource

MIXES = {
    1: [("1",)],
    2: [("1", "0"), ("0.7", "0.3"), ("1/3", "2/3"), ("0.5", "0.5"), ("0.3", "0.7"), ("0", "1")],
    3: [("1", "0", "0"), ("0", "1", "0"), ("0.5", "0.5", "0"), ("0", "0.2", "0.8"), ("0.2", "0.3", "0.5")],
}


def bytes_of(folder: Path) -> dict[str, object]:
    """Every file's bytes; of the manifest everything but when and in what time it was made."""
    files: dict[str, object] = dict(tree(folder))
    manifest = json.loads((folder / "rsoup.json").read_bytes())
    del manifest["run"]
    return files | {"rsoup.json": manifest}


def family(folder: Path, count: int, dtype: torch.dtype, shards: int = 1) -> tuple[dict[str, str], str]:
    """Ingredients' folders by name, and the base's."""
    base, tuned = related(count, dtype=dtype)
    names = {f"expert{i}": str(folder / f"expert{i}") for i in range(count)}
    for path, tensors in zip(names.values(), tuned, strict=True):
        write_folder(path, tensors, shards=shards)
    write_folder(folder / "base", base, shards=shards)
    return names, str(folder / "base")


def check_same(folder: Path, recipes: list[Recipe], threads: int | None = None) -> None:
    """Merged together and one by one, files and findings are equal."""
    together = merge_many(
        [(recipe, folder / f"together-{i}") for i, recipe in enumerate(recipes)], threads=threads
    )
    for i, (recipe, result) in enumerate(zip(recipes, together, strict=True)):
        alone = merge(recipe, folder / f"alone-{i}", threads=threads)
        assert bytes_of(folder / f"together-{i}") == bytes_of(folder / f"alone-{i}")
        assert result.notes == alone.notes
        assert (result.mixed, result.copied, result.files) == (alone.mixed, alone.copied, alone.files)


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_each_is_what_it_would_be_alone(
    tmp_path: Path, dtype: torch.dtype, count: int, with_base: bool
) -> None:
    """merge_many(r₁…r_K) = merge(r₁), …, merge(r_K): weights, card, manifest, distances to the last digit."""
    names, base = family(tmp_path, count, dtype, shards=2)
    given = {"base": base} if with_base else {}
    check_same(tmp_path, [rsoup.make_recipe(names, mix=mix, **given) for mix in MIXES[count]])


@pytest.mark.parametrize(
    "make",
    [
        lambda names, base, mix: rsoup.make_recipe(names, mix=mix, base=base, method="slerp"),
        lambda names, base, mix: rsoup.make_recipe(names, mix=mix, base=base, method="slerp", level="global"),
        lambda names, base, mix: rsoup.make_recipe(names, mix=mix, base=base, scale="0.5"),
        lambda names, base, mix: rsoup.make_recipe(names, mix=mix, base=base, method="task_arithmetic"),
        lambda names, _, mix: rsoup.make_recipe(names, mix=mix, dtype="float32"),
        lambda names, _, mix: rsoup.make_recipe(names, mix=mix, max_shard_size="50kB"),
    ],
    ids=["slerp", "slerp-global", "scale", "task-arithmetic", "dtype", "shards"],
)
def test_every_method_and_layout(
    tmp_path: Path, make: Callable[[dict[str, str], str, tuple[str, ...]], Recipe]
) -> None:
    """Measured angles, scales, other dtypes and shards change nothing of it."""
    names, base = family(tmp_path, 2, torch.bfloat16)
    check_same(tmp_path, [make(names, base, mix) for mix in MIXES[2]])


def test_scales_of_one_ingredient(tmp_path: Path) -> None:
    """A path from the base through one ingredient and beyond."""
    names, base = family(tmp_path, 1, torch.bfloat16)
    scales = ["0", "0.25", "1", "1.5"]
    check_same(tmp_path, [rsoup.make_recipe(names, mix=["1"], base=base, scale=s) for s in scales])


@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.float32), (torch.float16, torch.float64)])
def test_ingredients_of_different_dtypes(tmp_path: Path, dtypes: tuple[torch.dtype, ...]) -> None:
    """λ = eᵢ keeps ingredient i's dtype, all others get the widest: soups of one pass differ in size."""
    _, tuned = related(2, dtype=torch.float64)
    names = {}
    for i, (tensors, dtype) in enumerate(zip(tuned, dtypes, strict=True)):
        names[f"e{i}"] = str(tmp_path / f"e{i}")
        wanted = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        write_folder(names[f"e{i}"], wanted)
    check_same(tmp_path, [rsoup.make_recipe(names, mix=mix) for mix in MIXES[2]])


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_infinite_everywhere_is_carried_over(tmp_path: Path, with_base: bool, threads: int) -> None:
    """Elements that count for no distance are the same in company."""
    base, tuned = related(2)
    for i, tensors in enumerate((base, *tuned)):
        tensors["layers.0.weight"][3, 5:9] = float("-inf")
        write_folder(tmp_path / f"c{i}", tensors)
    names = {"a": str(tmp_path / "c1"), "b": str(tmp_path / "c2")}
    given = {"base": str(tmp_path / "c0")} if with_base else {}
    recipes = [rsoup.make_recipe(names, mix=mix, **given) for mix in MIXES[2]]
    check_same(tmp_path, recipes, threads)


def test_a_broken_ingredient_spoils_only_soups_with_a_share_of_it(tmp_path: Path) -> None:
    """NaN in one ingredient refuses the batch, and leaves nothing."""
    _, tuned = related(2)
    tuned[1]["layers.0.bias"][7] = float("nan")
    names = {
        "a": str(write_folder(tmp_path / "a", tuned[0])),
        "b": str(write_folder(tmp_path / "b", tuned[1])),
    }
    mixes = [("1", "0"), ("0.5", "0.5")]
    with pytest.raises(IncompatibleError) as refused:
        merge_many([(rsoup.make_recipe(names, mix=m), tmp_path / m[0]) for m in mixes])
    assert refused.value.code == "E0304"
    assert not (tmp_path / "1").exists()
    assert not list(tmp_path.glob("*.part"))
    merge(rsoup.make_recipe(names, mix=mixes[0]), tmp_path / "1")


def test_one_output_that_exists_refuses_all_before_anything_is_written(tmp_path: Path) -> None:
    """All outputs are looked at first."""
    names, _ = family(tmp_path, 2, torch.bfloat16)
    (tmp_path / "second").mkdir()
    recipes = [
        (rsoup.make_recipe(names, mix=m), tmp_path / o)
        for m, o in zip(MIXES[2], ("first", "second"), strict=False)
    ]
    with pytest.raises(TargetError):
        merge_many(recipes)
    assert not (tmp_path / "first").exists()


def test_only_soups_of_the_same_checkpoints_go_together(tmp_path: Path) -> None:
    """Another base, or one output twice, is a caller's mistake."""
    names, base = family(tmp_path, 2, torch.bfloat16)
    plain = rsoup.make_recipe(names, mix=["0.5", "0.5"])
    other = rsoup.make_recipe(names, mix=["0.5", "0.5"], base=base)
    with pytest.raises(ValueError, match="differ in λ"):
        merge_many([(plain, tmp_path / "x"), (other, tmp_path / "y")])
    with pytest.raises(ValueError, match="differ in λ"):
        merge_many([(plain, tmp_path / "x"), (plain, tmp_path / "." / "x")])


@pytest.mark.parametrize("way", ["at once", "one by one"])
def test_each_input_byte_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Six soups, one reading of every checkpoint: by the compiled call, and by the sources themselves."""
    names, base = family(tmp_path, 2, torch.bfloat16)
    read: dict[str, int] = {}
    if way == "at once":
        backend = type(make())
        gather = backend.gather
        if gather is None:
            pytest.skip("this installation found no C compiler")

        def counted(*arguments: Any) -> list[bytes]:
            for (fd, _), row in zip(arguments[1], arguments[-1], strict=True):
                read[str(fd)] = read.get(str(fd), 0) + len(row)
            return gather(*arguments)

        monkeypatch.setattr(backend, "gather", staticmethod(counted))
    else:
        monkeypatch.setattr(reading, "_places", lambda *_: None)
    by_sources: dict[str, int] = {}
    real = CheckpointSource.read

    def counting(self: CheckpointSource, tensor: str, start: int, buffer: memoryview) -> None:
        if tensor != "position_ids":  # integer buffers are compared before anything is planned
            by_sources[self.name] = by_sources.get(self.name, 0) + len(buffer)
        real(self, tensor, start, buffer)

    monkeypatch.setattr(CheckpointSource, "read", counting)
    recipes = [rsoup.make_recipe(names, mix=m, base=base) for m in MIXES[2]]
    merge_many([(recipe, tmp_path / f"o{i}") for i, recipe in enumerate(recipes)])
    _, tuned = related(2)
    size = sum(value.nbytes for value in tuned[0].values() if value.is_floating_point())
    if way == "one by one":
        assert by_sources == dict.fromkeys([*names, "base"], size)
    else:
        assert sorted(read.values()) == [size] * 3
        assert (
            sum(by_sources.values()) < size / 10
        )  # the ends of tensors that are too short for the compiled digest
