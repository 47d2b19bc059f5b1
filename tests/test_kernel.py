"""What cannot be a weight of the soup, not finite or too large, is refused by name and place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from checkpoints import Family, read_tensors, related, write_file, write_folder
from refusals import changed, refused, two

import rsoup as library
from rsoup.errors import IncompatibleError


@pytest.mark.fault("F9")
def test_mixed_float_types_are_mixed_and_said(tmp_path: Path, family: Family) -> None:
    """bf16 and fp32 are mixed in float64; the soup gets the type that holds both, and a note says so."""
    sides = two(tmp_path, family.tuned[0], related(2, dtype=torch.float32).tuned[1])

    result = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup")

    assert "5 tensors are stored as BF16 and F32: the soup gets F32" in result.notes
    assert read_tensors(tmp_path / "soup")["scale"].dtype == torch.float32


@pytest.mark.fault("F10")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_overflow_is_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """A sum beyond the largest value of the stored type is refused with tensor, count and a wider type."""
    largest = torch.finfo(dtype).max
    rows = [{"w": torch.tensor([1.0, factor * largest, 0.5]).to(dtype)} for factor in (0.9, 0.1)]
    base, one = (
        write_file(tmp_path / f"{name}.safetensors", row) for name, row in zip("bo", rows, strict=True)
    )
    recipe = library.make_recipe([base], mix=["3"], affine=True, base=one, allow=["distance"])

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0305"
    assert "1 of the elements of the soup's 'w' (first" in error.value.message
    assert "first at element 1" in error.value.message
    assert "--dtype" in str(error.value.hint)


@pytest.mark.fault("F10")
def test_overflow_of_a_narrower_output_is_refused(tmp_path: Path) -> None:
    """A bf16 weight of 70,000 does not fit into fp16: refused, although its ingredients are finite."""
    paths = [
        write_file(tmp_path / f"{i}.safetensors", {"w": torch.tensor([7e4]).bfloat16()}) for i in range(2)
    ]
    recipe = library.make_recipe(paths, uniform=True, dtype="float16")

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0305"


@pytest.mark.parametrize(
    ("dtype", "value", "said"),
    [("float16", 7e4, "--dtype float32 or --dtype bfloat16"), ("bfloat16", 3.4e38 * 1.01, "--dtype float64"),
     ("float32", 3.4e38 * 1.01, "--dtype float64"), ("float64", 1.7e308, "no type is wider")],
)  # fmt: skip
def test_what_overflows_is_told_of_a_type_that_holds_it(
    tmp_path: Path, dtype: str, value: float, said: str
) -> None:
    """The hint of E0305 never names the type that was just too narrow, or one that is no wider."""
    paths = [
        write_file(tmp_path / f"{i}.safetensors", {"w": torch.tensor([value], dtype=torch.float64)})
        for i in range(2)
    ]
    zero = write_file(tmp_path / "base.safetensors", {"w": torch.zeros(1, dtype=torch.float64)})
    recipe = library.make_recipe(paths, uniform=True, scale="2", base=zero, dtype=dtype, allow=["distance"])

    with pytest.raises(IncompatibleError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0305"
    assert said in str(error.value.hint)


@pytest.mark.fault("F11")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_weights_are_refused(tmp_path: Path, family: Family, value: float) -> None:
    """NaN or infinity in one ingredient: refused with its name, the tensor, how many and where the first is."""
    bad = family.tuned[1]["layers.0.weight"].clone()
    bad[1, 2] = bad[3, 4] = value
    sides = two(tmp_path, family.tuned[0], changed(family.tuned[1], layers__0__weight=bad))

    error = refused(tmp_path, *sides)

    assert error.code == "E0304"
    assert (
        "tensor 'layers.0.weight' of 'other' is NaN or infinite in 2 of its elements (first at element 66)"
        in str(error)
    )
    assert "leave 'other' out" in str(error.hint)


@pytest.mark.fault("F11")
def test_the_guilty_one_is_named(tmp_path: Path, family: Family) -> None:
    """Where all share an infinity and one has a NaN besides, that one is named, and its NaN counted alone."""
    rows = [tensors["layers.0.weight"].clone() for tensors in family.tuned]
    for row in rows:
        row[0, :7] = -math.inf
    rows[1][5, 0] = math.nan
    sides = two(
        tmp_path, *(changed(t, layers__0__weight=r) for t, r in zip(family.tuned, rows, strict=True))
    )  # fmt: skip

    assert "of 'other' is NaN or infinite in 1 of its elements (first at element 320)" in str(
        refused(tmp_path, *sides)
    )


@pytest.mark.fault("F11")
def test_what_all_share_is_kept(tmp_path: Path, family: Family) -> None:
    """A causal mask of −∞ that is the same everywhere is carried over, said, and leaves the distances alone."""
    mask = torch.full((6, 6), -math.inf).triu(1)
    paths = [
        write_folder(tmp_path / str(i), tensors | {"mask": mask})
        for i, tensors in enumerate((family.base, *family.tuned))
    ]

    result = library.merge(library.make_recipe(paths[1:], uniform=True, base=paths[0]), tmp_path / "soup")

    assert torch.equal(mask, read_tensors(tmp_path / "soup")["mask"])
    assert any("'mask' stays NaN or infinite in 15 of its elements" in note for note in result.notes)
    assert result.distances is not None
    assert all(value is not None and 0 < value < 0.1 for value in result.distances.relative)
