"""The laws of a soup, as properties: whatever the numbers, the files or the machine, these hold."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from arithmetic_twin import Weights, narrow, widen
from checkpoints import (
    Family,
    cooked,
    from_torch,
    in_memory,
    read_tensors,
    related,
    tensor_bytes,
    tree,
    write_file,
    write_folder,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arithmetic import BYTES, SIGNIFICAND, finite, ulp

import rsoup
from rsoup import plan as plans
from rsoup.backends import make
from rsoup.digests import ChunkHasher, file_digest, tensor_digest
from rsoup.errors import RsoupError
from rsoup.kernel import mix_run
from rsoup.scratch import Scratch
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.memory import MemorySink, MemorySource
from rsoup.tensors import DTYPES, TensorSpec

if TYPE_CHECKING:
    from conftest import Folders

FLOATS = tuple(BYTES)
METHODS = ("linear", "task_arithmetic", "slerp")


class NeverRead(MemorySource):
    """A checkpoint whose header may be looked at and whose weights may not."""

    def read(self, tensor: str, start: int, buffer: memoryview) -> None:  # noqa: ARG002
        """Fail."""
        msg = f"{self.name}: the weights of {tensor} were read"
        raise AssertionError(msg)


def never_read(name: str, dtype: str, size: int) -> NeverRead:
    """A checkpoint of one tensor that must not be read."""
    return NeverRead(name, {"w": (TensorSpec(DTYPES[dtype], (size,)), bytes(size * BYTES[dtype]))})


def one_tensor(name: str, weights: Weights) -> MemorySource:
    """A checkpoint of one tensor."""
    dtype, data = weights
    return in_memory(name, {"w": (dtype, (len(data) // BYTES[dtype],), data)})


@st.composite
def many_weights(
    draw: st.DrawFn, count: int, dtypes: tuple[str, ...] = FLOATS, *, any_bits: bool = False
) -> list[Weights]:
    """`count` checkpoints' weights of one dtype and one length: any finite bits, or any bits at all."""
    dtype = draw(st.sampled_from(dtypes))
    size = draw(st.integers(1, 16)) * BYTES[dtype]
    rows = [draw(st.binary(min_size=size, max_size=size)) for _ in range(count)]
    return [(dtype, row if any_bits else finite(dtype, row)) for row in rows]


shares = st.lists(st.integers(1, 9), min_size=2, max_size=5)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda n: st.tuples(many_weights(n, any_bits=True), st.integers(0, n - 1))
    ),
    st.sampled_from(["linear", "task_arithmetic"]),
    st.booleans(),
)  # fmt: skip
@pytest.mark.fault("F12")
def test_one_hot_gives_the_ingredient_back(case: tuple[list[Weights], int], method: str, based: bool) -> None:
    """λ = eᵢ ⇒ θ(λ) = θᵢ bit for bit, NaN and −0.0 too, and no other ingredient's weights are read."""
    weights, i = case
    dtype, size = weights[0][0], len(weights[0][1]) // BYTES[weights[0][0]]
    sources = [
        one_tensor(f"c{j}", row) if j == i else never_read(f"c{j}", dtype, size)
        for j, row in enumerate(weights)
    ]
    base = based or method != "linear"
    zeros = in_memory("base", {"w": (dtype, (size,), bytes(size * BYTES[dtype]))})
    mix = [Fraction(j == i) for j in range(len(weights))]
    recipe = rsoup.make_recipe(
        [f"c{j}" for j in range(len(weights))], mix=mix, method=method, base="base" if base else None
    )

    assert weights[i][1] == cooked(recipe, sources, zeros if base else None)["w"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.fault("F12")
def test_one_hot_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, dtype: torch.dtype
) -> None:
    """λ = e₁ gives θ₁ back whatever the method, and a θ₂ full of NaN leaves no trace: it is not read."""
    family = related(2, dtype=dtype)
    poison = {
        n: t if t.dtype == torch.int64 else torch.full_like(t, math.nan) for n, t in family.base.items()
    }
    paths = [
        write_file(tmp_path / f"{name}.safetensors", tensors)
        for name, tensors in (("base", family.base), ("one", family.tuned[0]), ("two", poison))
    ]
    recipe = rsoup.make_recipe(paths[1:], mix=["1", "0"], base=paths[0], method=method)
    read = CheckpointSource.read

    def watched(self: CheckpointSource, tensor: str, start: int, buffer: memoryview) -> None:
        assert self.name != "two"
        read(self, tensor, start, buffer)

    monkeypatch.setattr(CheckpointSource, "read", watched)

    result = rsoup.merge(recipe, tmp_path / "soup.safetensors")

    assert same_bits(family.tuned[0], read_tensors(tmp_path / "soup.safetensors"))
    assert result.distances is not None
    assert result.distances.relative[1] is None
    assert result.distances.relative[0] is not None


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit."""
    return {n: (t.dtype, t.shape, tensor_bytes(t)) for n, t in one.items()} == {
        n: (t.dtype, t.shape, tensor_bytes(t)) for n, t in other.items()
    }


@settings(max_examples=150, deadline=None)
@given(many_weights(1), shares, st.sampled_from(["linear", "task_arithmetic"]))
def test_equal_ingredients_give_themselves(weights: list[Weights], parts: list[int], method: str) -> None:
    """θᵢ = θ for all i ⇒ θ(λ) = θ, bit for bit, float64 and −0.0 included."""
    names = [f"c{i}" for i in range(len(parts))]
    mix = [Fraction(part, sum(parts)) for part in parts]
    sources = [one_tensor(name, weights[0]) for name in names]
    base = one_tensor("base", weights[0]) if method != "linear" else None
    recipe = rsoup.make_recipe(names, mix=mix, method=method, base="base" if base else None)

    assert weights[0][1] == cooked(recipe, sources, base)["w"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_order_does_not_matter(data: st.DataObject) -> None:
    """θ(π(λ), π(θ)) = θ(λ, θ) for every permutation π where N = 2 or the λ are distinct."""
    count = data.draw(st.integers(2, 5))
    weights = data.draw(many_weights(count))
    unique = count > 2
    parts = data.draw(st.lists(st.integers(1, 30), min_size=count, max_size=count, unique=unique))
    order = data.draw(st.permutations(range(count)))
    mix = [Fraction(part, sum(parts)) for part in parts]
    names = [f"c{i}" for i in range(count)]
    sources = [one_tensor(name, row) for name, row in zip(names, weights, strict=True)]

    one = cooked(rsoup.make_recipe(names, mix=mix), sources)
    other = cooked(
        rsoup.make_recipe([names[i] for i in order], mix=[mix[i] for i in order]), [sources[i] for i in order]
    )

    assert one == other


@settings(max_examples=100, deadline=None)
@given(many_weights(4), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any))
def test_linear_is_task_arithmetic_where_the_mix_sums_to_one(
    weights: list[Weights], parts: list[int]
) -> None:
    """Σλ = 1 ⇒ Σλᵢθᵢ = θ₀ + Σλᵢ(θᵢ − θ₀): bit for bit, not only nearly, and the base leaves no trace."""
    names = ["a", "b", "c"]
    mix = [Fraction(part, sum(parts)) for part in parts]
    sources = [one_tensor(name, row) for name, row in zip(names, weights, strict=False)]
    base = one_tensor("base", weights[3])

    linear = cooked(rsoup.make_recipe(names, mix=mix), sources)
    arithmetic = cooked(rsoup.make_recipe(names, mix=mix, method="task_arithmetic", base="b0"), sources, base)
    affine = cooked(rsoup.make_recipe(names, mix=mix, affine=True, base="b0"), sources, base)

    assert linear == arithmetic == affine


@settings(max_examples=100, deadline=None)
@given(many_weights(2), st.integers(1, 30))
def test_splitting_an_ingredient_changes_nothing(weights: list[Weights], part: int) -> None:
    """λ₁θ₁ = ½λ₁θ₁ + ½λ₁θ₁: as two ingredients and as a group of two (½λ₁ ≤ λ₂, so that they meet first)."""
    mix = (Fraction(part, 45), 1 - Fraction(part, 45))
    one, other = (one_tensor(name, row) for name, row in zip("ab", weights, strict=True))

    whole = cooked(rsoup.make_recipe(["a", "b"], mix=mix), [one, other])
    split = cooked(
        rsoup.make_recipe({"a": "a", "a2": "a", "b": "b"}, mix=(mix[0] / 2, mix[0] / 2, mix[1])),
        [one, one, other],
    )
    group = cooked(rsoup.make_recipe({"a": ["a", "a"], "b": "b"}, mix=mix), [one, one, other])

    assert whole == split == group


@settings(max_examples=100, deadline=None)
@given(many_weights(4, tuple(set(FLOATS) - {"F64"})), st.lists(st.integers(1, 9), min_size=4, max_size=4))
def test_a_soup_lies_between_its_ingredients(weights: list[Weights], parts: list[int]) -> None:
    """min θᵢ ≤ θ(λ) ≤ max θᵢ in every element, for λ ≥ 0 with Σλ = 1: rounding never leaves the interval."""
    mix = [Fraction(part, sum(parts)) for part in parts]
    rows = np.stack([widen(row) for row in weights])
    sources = [one_tensor(name, row) for name, row in zip("abcd", weights, strict=True)]

    soup = widen((weights[0][0], cooked(rsoup.make_recipe(list("abcd"), mix=mix), sources)["w"]))

    assert (rows.min(0) <= soup).all()
    assert (soup <= rows.max(0)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(-20, 20), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_powers_of_two_pass_through(power: int, seed: int, part: int) -> None:
    """θ(λ; 2ᵏθᵢ) = 2ᵏ·θ(λ; θᵢ), bit for bit, as long as nothing over- or underflows."""
    rows = np.random.default_rng(seed).normal(0, 0.02, (2, 16))
    mix = [Fraction(part, 10), 1 - Fraction(part, 10)]
    recipe = rsoup.make_recipe(["a", "b"], mix=mix)

    def made(factor: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        stored = [("F32", narrow("F32", widen(("F32", narrow("F32", row))) * factor)) for row in rows]
        return widen(("F32", cooked(recipe, [one_tensor("c", row) for row in stored])["w"]))

    assert (made(1.0) * 2.0**power == made(2.0**power)).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["F32", "BF16", "F16"]))
def test_a_soup_of_soups_is_nearly_the_flat_one(seed: int, dtype: str) -> None:
    """½(½a + ½b) + ½c differs from ¼a + ¼b + ½c by less than one ulp of the largest number on the way."""
    rows = [(dtype, narrow(dtype, row)) for row in np.random.default_rng(seed).normal(0, 0.02, (3, 16))]
    a, b, c = (one_tensor("c", row) for row in rows)
    half = rsoup.make_recipe(["x", "y"], mix=["0.5", "0.5"])

    inner = cooked(half, [a, b])["w"]
    nested = widen((dtype, cooked(half, [one_tensor("ab", (dtype, inner)), c])["w"]))
    flat = widen(
        (dtype, cooked(rsoup.make_recipe(["x", "y", "z"], mix=["1/4", "1/4", "1/2"]), [a, b, c])["w"])
    )

    largest = np.maximum(np.maximum(abs(nested), abs(flat)), abs(widen((dtype, inner))))
    for one, other, size in zip(nested, flat, largest, strict=True):
        assert abs(Fraction(one) - Fraction(other)) <= ulp(Fraction(size), dtype)
    assert dtype in SIGNIFICAND


def sliced(plan: plans.Plan, sources: list[MemorySource], slice_elements: int) -> dict[str, bytes]:
    """The soup cooked in slices of so many elements."""
    sink, scratch = MemorySink(plan.header), Scratch(len(sources), make())
    scratch.slice_elements = slice_elements
    for block in plan.blocks():
        for run in block.runs:
            mix_run([plan], run, sources, [sink], scratch)
    return {name: bytes(data) for name, data in sink.tensors.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("based", [False, True])
def test_blocks_slices_and_threads_leave_no_trace(dtype: torch.dtype, based: bool) -> None:
    """The bytes of a soup are a function of λ and θ alone: not of block size, slice size, thread count."""
    family = related(3, dtype=dtype)
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    base = from_torch("base", family.base) if based else None
    recipe = rsoup.make_recipe(
        ["a", "b", "c"], mix=["0.2", "0.5", "0.7"] if based else ["0.1", "0.2", "0.7"], affine=based,
        base="base" if based else None,
    )  # fmt: skip
    expected = cooked(recipe, sources, base)

    for threads, block in ((1, 1000), (2, 1 << 14), (7, 4096), (3, 1 << 20)):
        assert expected == cooked(recipe, sources, base, threads=threads, block_elements=block)
    plan = plans.make(recipe, sources, base)
    for slice_elements in (1 << 10, 5000, 1 << 16):
        assert expected == sliced(plan, [*sources, *([base] if base else [])], slice_elements)


def test_shards_leave_no_trace(tmp_path: Path, family: Family) -> None:
    """The soup of the same tensors is the same, in however many files they came and go, and says so."""
    results = []
    for number, (ours, theirs, size) in enumerate(
        ((1, 1, None), (3, 2, None), (1, 6, "60KB"), (2, 2, "1GB"))
    ):
        root = tmp_path / str(number)
        one = write_folder(root / "one", family.tuned[0], shards=ours)
        two = write_folder(root / "two", family.tuned[1], shards=theirs)
        recipe = rsoup.make_recipe([one, two], mix=["0.3", "0.7"], max_shard_size=size)
        results.append(rsoup.merge(recipe, root / "soup", threads=number % 3 + 1))

    first = read_tensors(results[0].out)
    for result in results:
        assert same_bits(first, read_tensors(result.out))
        assert results[0].manifest["content"] == result.manifest["content"]
        assert results[0].manifest["tensors"] == result.manifest["tensors"]


def test_digests_are_those_of_the_bytes_on_disk(tmp_path: Path) -> None:
    """Digests taken block by block, in any order, are the digests of the finished files, tensor by tensor."""
    size = (1 << 21) + 12_345
    rows = [
        torch.randn(size, generator=torch.Generator().manual_seed(i)).to(torch.bfloat16) for i in range(3)
    ]
    paths = [
        write_file(tmp_path / f"{i}.safetensors", {"a": row, "b": row[:7].float()})
        for i, row in enumerate(rows)
    ]
    recipe = rsoup.make_recipe(paths[:2], mix=["0.25", "0.75"], base=paths[2], allow=["distance"])

    result = rsoup.merge(recipe, tmp_path / "soup.safetensors", threads=2)

    data = (tmp_path / "soup.safetensors").read_bytes()
    head = data[: 8 + int.from_bytes(data[:8], "little")]
    tensors = read_tensors(tmp_path / "soup.safetensors")
    found = {}
    for name, tensor in tensors.items():
        hasher = ChunkHasher()
        hasher.update(memoryview(tensor_bytes(tensor)))
        chunks = hasher.digests()
        found[name] = tensor_digest([chunks])
    order = sorted(tensors, key=lambda name: data.index(f'"{name}"'.encode()))
    assert found == result.manifest["tensors"]
    subject = result.manifest["subject"]
    assert isinstance(subject, list)
    assert file_digest(head, [found[name] for name in order]) == subject[0]["digest"]
    assert len(data) == subject[0]["size"]


def test_two_runs_are_the_same_files(tmp_path: Path, base_and_two: Folders) -> None:
    """The same command twice writes the same bytes into every file, the manifest's `run` part apart."""
    trees = []
    for threads in (1, 3):
        recipe = rsoup.make_recipe(
            [base_and_two.one, base_and_two.two], mix=["0.3", "0.7"], base=base_and_two.base, method="slerp"
        )
        rsoup.merge(recipe, tmp_path / str(threads) / "soup", threads=threads)
        found = tree(tmp_path / str(threads) / "soup")
        manifest = json.loads(found.pop("rsoup.json"))
        del manifest["run"]
        trees.append((found, manifest))

    assert trees[0] == trees[1]


@pytest.mark.fault("G1")
def test_every_tensor_is_accounted_for(tmp_path: Path, base_and_two: Folders) -> None:
    """mixed + copied = the soup's header; with what was dropped on request, the inputs' header."""
    family = base_and_two.family
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True, drop=["layers.*.bias"])

    result = rsoup.merge(recipe, tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert result.mixed + result.copied == len(soup)
    assert set(soup) | set(result.dropped) == set(family.base)
    assert not set(soup) & set(result.dropped)
    assert result.copied == 1
    assert tensor_bytes(soup["position_ids"]) == tensor_bytes(family.base["position_ids"])


def test_what_nobody_fine_tuned_stays(tmp_path: Path) -> None:
    """A tensor that is the base's in every ingredient is the base's in the soup, bit for bit, in any mix."""
    family = related(3, dtype=torch.float32)
    for tuned in family.tuned:
        tuned["embed.weight"] = family.base["embed.weight"]
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    recipe = rsoup.make_recipe(["a", "b", "c"], mix=["0.3", "-1.1", "0.9"], affine=True, base="base")

    soup = cooked(recipe, sources, from_torch("base", family.base))

    assert tensor_bytes(family.base["embed.weight"]) == soup["embed.weight"]


def broken(kind: str, folders: Folders) -> dict[str, object]:
    """Options of a recipe that is refused: before, in the middle of and after the mixing."""
    two = {name: tensor.clone() for name, tensor in folders.family.tuned[1].items()}
    if kind == "E0301":
        del two["scale"]
    elif kind == "E0303":
        two["position_ids"] += 1
    elif kind == "E0304":
        two["layers.0.weight"][1, 2] = math.nan
    elif kind == "E0306":
        two = {n: t if t.dtype == torch.int64 else torch.randn_like(t) for n, t in two.items()}
    write_folder(folders.two, two)
    return {"base": folders.base}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["E0301", "E0303", "E0304", "E0306"])
def test_a_refused_merge_leaves_no_trace(base_and_two: Folders, kind: str, overwrite: bool) -> None:
    """A refusal, be it after the last byte was mixed, leaves every file under the target as it was."""
    options = broken(kind, base_and_two)
    out = base_and_two.root / "deep" / "soup"
    if overwrite:
        rsoup.merge(rsoup.make_recipe([base_and_two.one]), out)
    before = tree(base_and_two.root)
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True, **options)  # type: ignore[arg-type]

    with pytest.raises(RsoupError) as error:
        rsoup.merge(recipe, out, overwrite=overwrite)

    assert kind == error.value.code
    assert before == tree(base_and_two.root)


def test_the_bytes_on_disk_are_those_of_the_pot(tmp_path: Path, base_and_two: Folders) -> None:
    """What another library reads from the soup's files is what was cooked, for every tensor and shape."""
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], mix=["1/3", "2/3"])
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(base_and_two.family.tuned)]

    rsoup.merge(recipe, tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert cooked(recipe, sources) == {name: tensor_bytes(tensor) for name, tensor in soup.items()}
