"""The pot's bytes are those of the arithmetic's specification, and right to half a unit in the last place."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from arithmetic_twin import FP8, PLAIN, Weights, coefficients, narrow, soup, widen
from checkpoints import Stored, cooked, in_memory
from hypothesis import given, settings
from hypothesis import strategies as st

import rsoup
from rsoup import plan as plans
from rsoup.errors import IncompatibleError
from rsoup.recipe import Recipe
from rsoup.storage.memory import MemorySource
from rsoup.tensors import DTYPES

BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
SIGNIFICAND = {"F64": (53, -1022), "F32": (24, -126), "BF16": (8, -126), "F16": (11, -14),
               "F8_E4M3": (4, -6), "F8_E5M2": (3, -14)}  # bits with the hidden one, smallest exponent  # fmt: skip
SUPREMUM = 1e300  # of the test's float64 values: their products stay finite


def finite(dtype: str, data: bytes) -> bytes:
    """`data` with 1 in the place of every code that is no finite number (or a float64 beyond the test's)."""
    if dtype in FP8:
        codes = np.frombuffer(data, np.uint8).copy()
        codes[(codes & 127) >= len(FP8[dtype])] = 0x38
        return codes.tobytes()
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = widen((dtype, data))
    good = np.isfinite(values) & (np.abs(values) < SUPREMUM)
    one = np.frombuffer(narrow(dtype, np.ones(1)), np.uint8)
    raw = np.frombuffer(data, np.uint8).reshape(-1, BYTES[dtype]).copy()
    raw[~good] = one
    return raw.tobytes()


class Case(NamedTuple):
    """A soup to be made twice: the recipe, its factors, and the one tensor of every checkpoint, the base last."""

    recipe: Recipe
    factors: list[Fraction]
    weights: list[Weights]


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[str, ...] = tuple(BYTES)) -> Case:
    """Up to six ingredients, some of them groups; any mix, scale and dtypes; any finite bits at all."""
    count = draw(st.integers(1, 6))
    groups = [draw(st.integers(1, 2)) for _ in range(count)]
    size = draw(st.integers(1, 24))
    affine = draw(st.booleans())
    base = affine or draw(st.booleans())
    scale = (
        draw(st.sampled_from([Fraction(1), Fraction(1), Fraction(1, 3), Fraction(3, 2)]))
        if base
        else Fraction(1)
    )
    if affine:
        mix = draw(st.lists(st.fractions(-2, 2, max_denominator=7), min_size=count, max_size=count))
    else:
        shares = draw(st.lists(st.integers(0, 9), min_size=count, max_size=count).filter(any))
        mix = [Fraction(share, sum(shares)) for share in shares]
    kinds = draw(st.sampled_from([*[(dtype,) for dtype in dtypes], dtypes]))
    weights = []
    for _ in range(sum(groups) + base):
        dtype = draw(st.sampled_from(kinds))
        length = size * BYTES[dtype]
        weights.append((dtype, finite(dtype, draw(st.binary(min_size=length, max_size=length)))))
    names = iter(range(100))
    recipe = rsoup.make_recipe(
        {f"i{i}": [f"c{next(names)}" for _ in range(many)] for i, many in enumerate(groups)},
        mix=mix,
        base="base" if base else None,
        affine=affine,
        scale=scale,
    )
    return Case(recipe, coefficients(mix, groups, scale, base=base), weights)


def sources(case: Case) -> tuple[list[MemorySource], MemorySource | None]:
    """The case's checkpoints in memory, and its base."""
    opened = []
    for i, (dtype, data) in enumerate(case.weights):
        stored: Stored = (dtype, (len(data) // BYTES[dtype],), data)
        opened.append(in_memory(f"c{i}", {"w": stored}))
    return (opened[:-1], opened[-1]) if case.recipe.base is not None else (opened, None)


def output_dtype(case: Case) -> str:
    """The dtype of the soup, as the plan says."""
    inputs, base = sources(case)
    return plans.make(case.recipe, inputs, base).header["w"].dtype.name


@settings(max_examples=400, deadline=None)
@given(cases())
def test_every_bit_is_that_of_the_specification(case: Case) -> None:
    """pot(recipe, θ) = twin(λ, θ), bit for bit: every dtype, 1 to 6 ingredients, groups, affine, scale."""
    dtype = output_dtype(case)
    expected = soup(case.factors, case.weights, dtype)
    inputs, base = sources(case)
    if not np.isfinite(widen((dtype, expected))).all():
        with pytest.raises(IncompatibleError) as error:
            cooked(case.recipe, inputs, base)
        assert error.value.code == "E0305"
        return

    assert expected == cooked(case.recipe, inputs, base)["w"]


def exact(case: Case) -> list[Fraction]:
    """Σ factorᵢ·θᵢ as rationals, element by element."""
    wide = [[Fraction(float(x)) for x in widen(weights)] for weights in case.weights]
    return [
        sum((factor * row[k] for factor, row in zip(case.factors, wide, strict=True)), Fraction(0))
        for k in range(len(wide[0]))
    ]


def ulp(value: Fraction, dtype: str) -> Fraction:
    """The distance of neighbouring numbers of `dtype` around `value`."""
    bits, smallest = SIGNIFICAND[dtype]
    exponent = smallest if value == 0 else max(math.frexp(float(value))[1] - 1, smallest)
    return Fraction(2) ** (exponent - bits + 1)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_half_an_ulp_from_the_exact_value(case: Case) -> None:
    """|out − Σcᵢθᵢ| ≤ ½ulp(out) + ½ulp₃₂ (double rounding) + N·2⁻⁵²·Σ|cᵢθᵢ| (the sum), in rationals."""
    dtype = output_dtype(case)
    inputs, base = sources(case)
    try:
        result = widen((dtype, cooked(case.recipe, inputs, base)["w"]))
    except IncompatibleError:  # too large for the dtype: the test above
        return
    wide = [[Fraction(float(x)) for x in widen(weights)] for weights in case.weights]
    for k, (got, right) in enumerate(zip(result, exact(case), strict=True)):
        size = sum((abs(c * row[k]) for c, row in zip(case.factors, wide, strict=True)), Fraction(0))
        sum_error = len(case.weights) * Fraction(1, 2**52) * size + Fraction(1, 2**1074)
        twice = ulp(right, "F32") / 2 if dtype != "F64" else Fraction(0)
        bound = ulp(right, dtype) / 2 + twice + sum_error
        # at the edge of a binade the neighbour above is one coarser step away
        assert abs(Fraction(float(got)) - right) <= bound * (1 + Fraction(1, 2**40))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_ten_thousand_ordinary_weights(dtype: str) -> None:
    """|out − Σλᵢθᵢ| ≤ ½ulp·(1 + 2⁻²⁰) on weights as they are: θ ~ N(0, 0.02), four fine-tunes 1 % away."""
    random = np.random.default_rng(0)
    start = random.normal(0, 0.02, 10_000)
    weights: list[Weights] = [
        (dtype, narrow(dtype, start + random.normal(0, 2e-4, 10_000))) for _ in range(4)
    ]
    mix = [Fraction(1, 10), Fraction(1, 5), Fraction(3, 10), Fraction(2, 5)]
    recipe = rsoup.make_recipe([f"c{i}" for i in range(4)], mix=mix)
    case = Case(recipe, mix, weights)

    result = widen((dtype, cooked(recipe, sources(case)[0])["w"]))

    worst = max(
        abs(Fraction(float(got)) - right) / ulp(right, dtype)
        for got, right in zip(result, exact(case), strict=True)
    )
    assert worst <= Fraction(1, 2) * (1 + Fraction(1, 2**20 if dtype == "F32" else 2**12))


def test_double_rounding_is_the_specification() -> None:
    """fp64 → fp32 → bf16: 1 + 2⁻⁸ + 2⁻⁴⁰ becomes 1.0, where one rounding would give 1.0078125."""
    value = np.array([1 + 2.0**-8 + 2.0**-40])
    recipe = rsoup.make_recipe(["a"], dtype="bfloat16")

    result = cooked(recipe, [in_memory("a", {"w": ("F64", (1,), value.tobytes())})])["w"]

    assert narrow("BF16", np.ones(1)) == result


def test_no_fused_multiply_add() -> None:
    """fl(fl(⅓·−2θ) + fl(⅔·θ)) = 0 exactly, where fma(⅔, θ, fl(⅓·−2θ)) leaves the rounding of a product."""
    theta = 1 + 2.0**-30
    fused = Fraction(2 / 3) * Fraction(theta) + Fraction(1 / 3 * (-2 * theta))
    assert fused != 0
    rows = (in_memory("c", {"w": ("F64", (1,), np.array([x]).tobytes())}) for x in (-2 * theta, theta))

    result = cooked(rsoup.make_recipe(["a", "b"], mix=["1/3", "2/3"]), list(rows))["w"]

    assert np.zeros(1).tobytes() == result


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("BF16", "BF16"), "BF16"), (("BF16", "F16"), "F32"), (("BF16", "F32"), "F32"), (("F16", "F32"), "F32"),
        (("F32", "F64"), "F64"), (("F8_E4M3", "F8_E4M3"), "F8_E4M3"), (("F8_E4M3", "F8_E5M2"), "BF16"),
        (("F8_E4M3", "F16"), "F16"), (("F8_E5M2", "BF16"), "BF16"), (("F16", "F64"), "F64"),
    ],
)  # fmt: skip
@pytest.mark.fault("F9")
def test_the_output_dtype_holds_every_input(dtypes: tuple[str, str], expected: str) -> None:
    """Mixed dtypes give the narrowest of bf16, fp16, fp32, fp64 that holds every value of all of them."""
    found = plans.widest([DTYPES[name] for name in dtypes])

    assert expected == found.name
    assert all(DTYPES[d].significand_bits <= found.significand_bits for d in dtypes)
    assert all(DTYPES[d].maximum <= found.maximum for d in dtypes)


def test_the_twin_knows_every_code_of_the_small_formats() -> None:
    """The twin's own reading of bf16, fp16 and fp8 is torch's, for all codes: two witnesses, not one."""
    import torch

    for name, dtype in (("F8_E4M3", torch.float8_e4m3fn), ("F8_E5M2", torch.float8_e5m2)):
        codes = finite(name, bytes(range(256)))
        theirs = torch.frombuffer(bytearray(codes), dtype=dtype).to(torch.float64).numpy()
        assert np.array_equal(theirs, widen((name, codes)))
        assert codes == narrow(name, widen((name, codes)))
    for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        codes = finite(name, np.arange(65536, dtype="<u2").tobytes())
        theirs = torch.frombuffer(bytearray(codes), dtype=dtype).to(torch.float64).numpy()
        assert np.array_equal(theirs, widen((name, codes)))
        assert codes == narrow(name, widen((name, codes)))
    assert set(PLAIN) | set(FP8) | {"BF16"} == set(BYTES)
