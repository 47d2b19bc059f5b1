"""One pass over checkpoints measures what a plain float64 computation of the same elements says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import Tensors, from_torch, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup import scratch
from rsoup.family.survey import TensorRecord, comparable, survey
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.protocols import Source

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2]
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def surveyed(models: Sequence[Tensors], **options: object) -> dict[str, TensorRecord]:
    """The records of these models by tensor, the last of them the reference."""
    sources: list[Source] = [from_torch(f"m{i}", tensors) for i, tensors in enumerate(models)]
    names, _ = comparable([source.header for source in sources])
    return {record.name: record for record in survey(sources, names, **options)}  # type: ignore[arg-type]


def bits_of(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """Rows of integers that have the order of IEEE 754's total order; other dtypes are widened first."""
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.double() for tensor in tensors]
    rows = [tensor.reshape(-1).view(INTEGERS[tensor.element_size()]) for tensor in tensors]
    numbers = np.stack([row.numpy().astype(np.int64) for row in rows])
    largest = (1 << (8 * tensors[0].element_size() - 1)) - 1
    return np.where(numbers < 0, numbers ^ largest, numbers)


def expected(name: str, tensors: Sequence[torch.Tensor]) -> TensorRecord:
    """The record of one tensor of floats, all finite, from whole rows."""
    wide = torch.stack([tensor.double().reshape(-1) for tensor in tensors])
    rows = torch.cat([wide[:-1] - wide[-1], wide[-1:]])
    size = len(rows)
    products = tuple(math.fsum((rows[i] * rows[j]).tolist()) for i in range(size) for j in range(i, size))
    keys = bits_of(tensors)
    differs = keys[:-1] != keys[-1]
    how_many = differs.sum(0)
    up, down = (keys[:-1] > keys[-1]).any(0), (keys[:-1] < keys[-1]).any(0)
    return TensorRecord(
        name, wide.shape[1], products, tuple(map(int, differs.sum(1))), tuple(map(int, (differs & (how_many == 1)).sum(1))),
        int((how_many > 0).sum()), int((how_many == size - 1).sum()), int((up & down).sum()),
    )  # fmt: skip


def assert_same(found: TensorRecord, right: TensorRecord) -> None:
    """Counts are equal, products as near as float64 sums of so many numbers can be."""
    size = round((math.sqrt(8 * len(right.products) + 1) - 1) / 2)
    diagonal = {}
    position = 0
    for i in range(size):
        for j in range(i, size):
            if i == j:
                diagonal[i] = right.products[position]
            position += 1
    position = 0
    for i in range(size):
        for j in range(i, size):
            scale = math.sqrt(diagonal[i] * diagonal[j])
            assert math.isclose(found.products[position], right.products[position], abs_tol=1e-13 * scale)
            position += 1
    for field in ("name", "numel", "changed", "unique", "moved", "shared", "conflicts"):
        assert getattr(found, field) == getattr(right, field), field


def models_of(
    dtypes: Sequence[torch.dtype], shapes: Sequence[tuple[int, ...]], seed: int = 0
) -> list[Tensors]:
    """A reference (the last) and models near it in which half of the elements are as they were."""
    generator = torch.Generator().manual_seed(seed)
    start = {f"layers.{i}.w": torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    found = []
    for number, dtype in enumerate(dtypes):
        tensors = {}
        for name, value in start.items():
            still = (torch.rand(value.shape, generator=generator) < 0.5) | torch.tensor(
                number == len(dtypes) - 1
            )
            step = 0.3 * torch.randn(value.shape, generator=generator)
            tensors[name] = torch.where(still, value, value + step).to(dtype)
        found.append(tensors)
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_measure_of_one_dtype(dtype: torch.dtype, count: int) -> None:
    """⟨δᵢ, δⱼ⟩, changed, unique, moved, shared and conflicts are those of the whole tensors, in every float dtype."""
    models = models_of([dtype] * (count + 1), [(37, 53), (), (5,), (0, 3)])

    found = surveyed(models)

    for name in models[0]:
        if models[0][name].numel():
            assert_same(found[name], expected(name, [model[name] for model in models]))
        else:
            assert found[name] == TensorRecord(name, 0)


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(DTYPES[:4]), min_size=2, max_size=5),
    st.integers(1, 3000),
    st.integers(0, 10**6),
)
def test_every_measure_of_mixed_dtypes(dtypes: list[torch.dtype], size: int, seed: int) -> None:
    """The same where dtypes differ from checkpoint to checkpoint: all are widened, which changes no value."""
    models = models_of(dtypes, [(size,)], seed)

    found = surveyed(models)["layers.0.w"]

    assert_same(found, expected("layers.0.w", [model["layers.0.w"] for model in models]))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(*[st.integers(0, 0xFFFF)] * 3), min_size=1, max_size=40),
    st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_any_bits(elements: list[tuple[int, ...]], dtype: torch.dtype) -> None:
    """Counts follow the stored bits for every pattern: −0 is not +0, equal NaN are equal, directions are total."""
    columns = np.array(elements, dtype=np.uint16).T.copy()
    models = [{"w": torch.from_numpy(row.view(np.int16).copy()).view(dtype)} for row in columns]

    found = surveyed(models)["w"]

    keys = bits_of([model["w"] for model in models])
    differs = keys[:-1] != keys[-1]
    up, down = (keys[:-1] > keys[-1]).any(0), (keys[:-1] < keys[-1]).any(0)
    assert found.changed == tuple(differs.sum(1))
    assert found.moved == differs.any(0).sum()
    assert found.conflicts == (up & down).sum()
    bad = [~model["w"].double().isfinite() for model in models]
    assert (found.nonfinite or (0, 0, 0)) == tuple(int(row.sum()) for row in bad)
    alike = (keys == keys[-1]).all(0)
    assert found.carried == int((bad[-1].numpy() & alike).sum())


def test_slices_and_threads_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records are the same, to the last bit, for 1 and 3 threads and for any sharding."""
    models = models_of([torch.bfloat16] * 3, [(1100, 1000), (300, 700), (4,), *[(7, 5)] * 30])
    found = []
    for shards in (1, 4):
        paths = [write_folder(tmp_path / f"{shards}-{i}", m, shards=shards) for i, m in enumerate(models)]
        for threads in (1, 3):
            sources = [open_checkpoint(str(path)) for path in paths]
            names, left_out = comparable([source.header for source in sources])
            found.append({r.name: r for r in survey(sources, names, threads=threads)})
            assert left_out == []
            for source in sources:
                source.close()

    assert all(other == found[0] for other in found[1:])
    name = "layers.0.w"
    assert_same(found[0][name], expected(name, [model[name] for model in models]))


def test_slices_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost or counted twice where slices end."""
    monkeypatch.setattr(scratch, "SLICE_ELEMENTS", 4096)
    models = models_of([torch.float16] * 4, [(3 * 4096 + 17,), (4096,), (4095,)])

    found = surveyed(models)

    for name in models[0]:
        assert_same(found[name], expected(name, [model[name] for model in models]))


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    """NaN and infinities are counted by checkpoint; the products are those of the elements finite everywhere."""
    models = models_of([torch.float32] * 3, [(100,)])
    models[0]["layers.0.w"][[3, 7]] = torch.tensor([math.nan, math.inf])
    models[2]["layers.0.w"][50] = -math.inf

    found = surveyed(models)["layers.0.w"]

    for model in models:
        model["layers.0.w"] = torch.cat(
            [model["layers.0.w"][torch.tensor([i not in (3, 7, 50) for i in range(100)])]]
        )
    right = expected("layers.0.w", [model["layers.0.w"] for model in models])
    assert found.nonfinite == (2, 0, 1)
    assert found.carried == 0
    assert all(
        math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
        for a, b in zip(found.products, right.products, strict=True)
    )


def test_masks_that_all_have_are_told_apart() -> None:
    """−∞ with the same bits in every checkpoint is `carried`, and no distance."""
    models = models_of([torch.bfloat16] * 3, [(64,)])
    for model in models:
        model["layers.0.w"][:10] = -math.inf

    found = surveyed(models)["layers.0.w"]

    assert found.nonfinite == (10, 10, 10)
    assert found.carried == 10
    assert all(map(math.isfinite, found.products))


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64], ids=str
)
def test_what_is_no_float_is_compared_by_its_bits(dtype: torch.dtype) -> None:
    """Integers, booleans and complex numbers have counts and no distances."""
    base = torch.zeros(40, dtype=dtype)
    one, two = base.clone(), base.clone()
    one[3] = two[3] = two[5] = 1

    found = surveyed([{"n": one}, {"n": two}, {"n": base}])["n"]

    assert (found.products, found.changed, found.unique) == ((), (1, 2), (0, 1))
    assert (found.moved, found.shared, found.conflicts) == (2, 1, 0)


@pytest.mark.parametrize(
    ("narrow", "wide"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
def test_a_delta_of_rounding_alone(narrow: torch.dtype, wide: torch.dtype) -> None:
    """θᵢ and θ₀ that differ, and are equal once rounded to the narrower dtype of the two, differ by rounding alone."""
    exact = torch.randn(100, generator=torch.Generator().manual_seed(0))
    one, base = exact.to(narrow), exact.to(wide)
    moved = one.clone()
    moved[7] *= 1.5

    found = surveyed([{"w": one}, {"w": moved}, {"w": base}])["w"]

    assert found.rounding == (True, False)
    assert found.products[0] > 0
    assert surveyed([{"w": base}, {"w": base}])["w"].rounding == ()


def test_without_movement_only_products(tmp_path: Path) -> None:
    """With `moved` False there are products and no counts."""
    models = models_of([torch.bfloat16] * 2, [(50,)])

    found = surveyed(models, moved=False)["layers.0.w"]

    assert found.changed == ()
    assert len(found.products) == 3


def test_only_what_all_have_alike_is_measured() -> None:
    """Tensors of other shapes, in some checkpoints only, or of other kinds are left out, and listed."""
    one = {
        "a": torch.zeros(3),
        "b": torch.zeros(2),
        "n": torch.zeros(2, dtype=torch.int32),
        "only": torch.ones(1),
    }
    two = {
        "a": torch.zeros(3, dtype=torch.bfloat16),
        "b": torch.zeros(3),
        "n": torch.zeros(2, dtype=torch.int64),
    }

    measured, left_out = comparable([from_torch("one", one).header, from_torch("two", two).header])

    assert measured == ["a"]
    assert left_out == ["b", "n", "only"]


def test_progress_reaches_the_end() -> None:
    """The bytes that progress is told of are all bytes of all checkpoints."""
    models = models_of([torch.bfloat16] * 3, [(1 << 10, 1 << 11), (9,)])
    told: list[int] = []

    surveyed(models, progress=told.append)

    assert sum(told) == sum(t.numel() * 2 for model in models for t in model.values())
    assert len(told) > 1
