"""Methods, rules, groups and distances against references of a few float64 lines."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from checkpoints import Family, cooked, from_torch, read_tensors, related, tensor_bytes, write_file
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rsoup
from rsoup import plan as plans
from rsoup.backends import Kind
from rsoup.backends import make as backend_of
from rsoup.errors import IncompatibleError, UsageError
from rsoup.gram import GramSum, finite_products, grouped, unfold
from rsoup.methods import METHODS, Term, slerp, terms
from rsoup.mixture import RunRecord
from rsoup.pot import cook
from rsoup.recipe import Ingredient as Named
from rsoup.recipe import Rule
from rsoup.request import METHOD_NAMES, Request, RuleRequest, make
from rsoup.storage.memory import MemorySink
from rsoup.tensors import DTYPES

Doubles = npt.NDArray[np.float64]
HALF = [Fraction(1, 2), Fraction(1, 2)]


def slerp_reference(t: float, base: Doubles, one: Doubles, two: Doubles) -> Doubles:
    """θ₀ + [sin((1−t)Ω)·δ₁ + sin(tΩ)·δ₂]/sin Ω, Ω the angle between δ₁ and δ₂."""
    d1, d2 = one - base, two - base
    omega = np.arccos((d1 * d2).sum() / (np.linalg.norm(d1) * np.linalg.norm(d2)))
    return np.asarray(base + (np.sin((1 - t) * omega) * d1 + np.sin(t * omega) * d2) / np.sin(omega))


def doubles(tensor: torch.Tensor) -> Doubles:
    """A tensor's values, flat."""
    return np.asarray(tensor.to(torch.float64).flatten().numpy())


def floats(tensors: dict[str, torch.Tensor]) -> list[str]:
    """The names of the tensors that are mixed and have elements."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()]


def written(folder: Path, family: Family) -> list[Path]:
    """The base and the fine-tunes as files: base, 0, 1, …"""
    rows = [("base", family.base), *((str(i), tensors) for i, tensors in enumerate(family.tuned))]
    return [write_file(folder / f"{name}.safetensors", tensors) for name, tensors in rows]


@pytest.mark.parametrize("t", ["0.1", "0.5", "2/3"])
def test_slerp_turns_each_tensor(tmp_path: Path, t: str) -> None:
    """SLERP per tensor: each tensor's deltas are turned into each other by their own angle Ω."""
    family = related(2, dtype=torch.float64)
    base, one, two = written(tmp_path, family)
    share = Fraction(t)
    recipe = rsoup.make_recipe([one, two], mix=[1 - share, share], base=base, method="slerp")

    rsoup.merge(recipe, tmp_path / "soup.safetensors")

    soup = read_tensors(tmp_path / "soup.safetensors")
    for name in set(floats(family.base)) - {"scale"}:  # a scalar's deltas are parallel
        rows = (doubles(tensors[name]) for tensors in (family.base, *family.tuned))
        assert np.allclose(slerp_reference(float(share), *rows), doubles(soup[name]), rtol=0, atol=1e-12)


def test_slerp_by_one_angle(tmp_path: Path) -> None:
    """SLERP over the whole model: one Ω, that of the deltas as single long vectors."""
    family = related(2, dtype=torch.float64)
    base, one, two = written(tmp_path, family)
    recipe = rsoup.make_recipe([one, two], mix=["0.3", "0.7"], base=base, method="slerp", level="global")

    rsoup.merge(recipe, tmp_path / "soup.safetensors")

    names = floats(family.base)
    soup = read_tensors(tmp_path / "soup.safetensors")
    whole = [np.concatenate([doubles(tensors[n]) for n in names]) for tensors in (family.base, *family.tuned)]
    expected = slerp_reference(0.7, *whole)
    assert np.allclose(expected, np.concatenate([doubles(soup[n]) for n in names]), rtol=0, atol=1e-12)


def test_slerp_of_groups(tmp_path: Path) -> None:
    """SLERP between two groups turns the mean delta of the one into the mean delta of the other."""
    family = related(5, dtype=torch.float64)
    base, *paths = written(tmp_path, family)
    recipe = rsoup.make_recipe(
        {"a": paths[:2], "b": paths[2:]}, mix=["0.4", "0.6"], base=base, method="slerp"
    )

    rsoup.merge(recipe, tmp_path / "soup.safetensors")

    soup = read_tensors(tmp_path / "soup.safetensors")
    for name in set(floats(family.base)) - {"scale"}:
        rows = [doubles(tensors[name]) for tensors in family.tuned]
        expected = slerp_reference(
            0.6, doubles(family.base[name]), np.mean(rows[:2], axis=0), np.mean(rows[2:], axis=0)
        )
        assert np.allclose(expected, doubles(soup[name]), rtol=0, atol=1e-12)


def test_slerp_scaled(tmp_path: Path) -> None:
    """With --scale s the turned delta is stretched: θ₀ + s·(slerp − θ₀)."""
    family = related(2, dtype=torch.float64)
    base, one, two = written(tmp_path, family)
    recipe = rsoup.make_recipe([one, two], mix=["0.3", "0.7"], base=base, method="slerp", scale="0.5")

    rsoup.merge(recipe, tmp_path / "soup.safetensors")

    soup, name = read_tensors(tmp_path / "soup.safetensors"), "embed.weight"
    start = doubles(family.base[name])
    turned = slerp_reference(0.7, start, *(doubles(tensors[name]) for tensors in family.tuned))
    assert np.allclose(start + 0.5 * (turned - start), doubles(soup[name]), rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-10, 10), min_size=4, max_size=4), st.fractions(0, 1, max_denominator=20)
)  # fmt: skip
def test_slerp_coefficients(values: list[float], t: Fraction) -> None:
    """c = (sin((1−t)Ω), sin(tΩ))/sin Ω; ends exactly at e₁ and e₂; keeps the length of equally long deltas."""
    d1, d2 = np.array(values[:2]), np.array(values[2:])
    gram = [[float(a @ b) for b in (d1, d2)] for a in (d1, d2)]

    c = slerp([1 - t, t], gram)

    if t in (0, 1):
        assert c == (1 - t, t)
    norms = math.sqrt(gram[0][0] * gram[1][1])
    assume(norms > 1e-3)
    cosine = gram[0][1] / norms
    assume(abs(cosine) < 0.999)
    d2 = d2 * np.linalg.norm(d1) / np.linalg.norm(d2)
    assert math.isclose(np.linalg.norm(float(c[0]) * d1 + float(c[1]) * d2), np.linalg.norm(d1), rel_tol=1e-9)


@settings(deadline=None)
@given(st.floats(1e-3, 3.1), st.fractions(0, 1, max_denominator=50))
def test_slerp_coefficients_are_rounded_once(angle: float, t: Fraction) -> None:
    """The float64 nearest to the formula in 60 digits, by a series of its own, from the same Gram matrix."""
    assume(t not in (0, 1))
    gram = [[2.0, 3.0 * math.cos(angle)], [3.0 * math.cos(angle), 4.5]]
    getcontext().prec = 80
    cosine = Decimal(gram[0][1]) / (Decimal(2) * Decimal("4.5")).sqrt()
    omega = Decimal(math.acos(float(cosine)))
    for _ in range(6):  # Newton's steps for cos Ω = cosine
        omega += (decimal_cos(omega) - cosine) / decimal_sin(omega)

    expected = [
        float(decimal_sin(omega * share.numerator / share.denominator) / decimal_sin(omega))
        for share in (1 - t, t)
    ]

    assert [float(c) for c in slerp([1 - t, t], gram)] == expected


def decimal_sin(x: Decimal) -> Decimal:
    """sin x by its series."""
    term = total = x
    for n in range(1, 60):
        term = -term * x * x / (2 * n * (2 * n + 1))
        total += term
    return total


def decimal_cos(x: Decimal) -> Decimal:
    """cos x by its series."""
    term = total = Decimal(1)
    for n in range(1, 60):
        term = -term * x * x / (2 * n * (2 * n - 1))
        total += term
    return total


@pytest.mark.parametrize(
    "gram",
    [
        [[0.0, 0.0], [0.0, 1.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 1.0], [1.0, 1.0]],
        [[1.0, -1.0], [-1.0, 1.0]],
        [[4.0, 2.0 + 1e-15], [2.0 + 1e-15, 1.0]],
        [[math.inf, 1.0], [1.0, 1.0]],
        [[math.nan, 1.0], [1.0, 1.0]],
    ],
)
def test_slerp_without_an_angle_is_linear(gram: list[list[float]]) -> None:
    """Where a delta is zero or infinite, or both are parallel, there is nothing to turn: c = λ."""
    assert tuple(HALF) == slerp(HALF, gram)


@pytest.mark.parametrize("level", ["tensor", "global"])
def test_slerp_with_a_zero_delta_is_linear(tmp_path: Path, level: str) -> None:
    """An ingredient that is the base has no direction: slerp = linear, bit for bit, and no NaN."""
    family = related(1)
    base, one = written(tmp_path, family)

    for method in ("slerp", "linear"):
        recipe = rsoup.make_recipe({"a": base, "b": one}, uniform=True, base=base, method=method, level=level)
        rsoup.merge(recipe, tmp_path / f"{method}.safetensors")

    made = [read_tensors(tmp_path / f"{method}.safetensors") for method in ("slerp", "linear")]
    assert {n: tensor_bytes(t) for n, t in made[0].items()} == {
        n: tensor_bytes(t) for n, t in made[1].items()
    }


@pytest.mark.fault("F11")
def test_slerp_around_what_all_share(tmp_path: Path) -> None:
    """Infinite elements that all checkpoints share have no delta: they stay, and Ω is that of the others."""
    family = related(2, dtype=torch.float64)
    name = "layers.0.weight"
    for tensors in (family.base, *family.tuned):
        tensors[name][0, :5] = -math.inf
    base, one, two = written(tmp_path, family)
    recipe = rsoup.make_recipe([one, two], mix=["0.3", "0.7"], base=base, method="slerp")

    result = rsoup.merge(recipe, tmp_path / "soup.safetensors")

    soup = doubles(read_tensors(tmp_path / "soup.safetensors")[name])
    rows = [doubles(tensors[name]) for tensors in (family.base, *family.tuned)]
    good = np.isfinite(rows[0])
    assert np.array_equal(np.isfinite(soup), good)
    assert np.allclose(slerp_reference(0.7, *(row[good] for row in rows)), soup[good], rtol=0, atol=1e-12)
    assert any("stays NaN or infinite in 5 of its elements" in note for note in result.notes)
    assert_distances(result, family)


def test_terms_are_summed_in_one_order() -> None:
    """Ascending coefficients, ties as in the recipe, the base after them; zeros left out; one rounding each."""
    third, quarter, one = Fraction(1, 3), Fraction(1, 4), Fraction(1)
    uneven = (Fraction(7, 10), Fraction(0), Fraction(3, 10))
    each = ((0,), (1,), (2,))

    assert terms((third, third, third), each, 3, one) == (Term(0, 1 / 3), Term(1, 1 / 3), Term(2, 1 / 3))
    assert [term.checkpoint for term in terms(uneven, each, None, one)] == [2, 0]
    assert terms((quarter, quarter), each[:2], 2, one) == (Term(0, 0.25), Term(1, 0.25), Term(2, 0.5))
    assert terms((third,), ((0, 1),), 2, 2 * one) == (Term(0, 1 / 3), Term(1, 1 / 3), Term(2, 1 / 3))
    assert terms((2 * one, -one), each[:2], 2, one) == (Term(1, -1.0), Term(0, 2.0))
    assert terms((one,), each[:1], 1, 0 * one) == (Term(1, 1.0),)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.fractions(-3, 3, max_denominator=50), st.integers(1, 3)), min_size=1, max_size=5),
    st.fractions(-2, 2, max_denominator=9),
)
def test_terms_add_up(shares: list[tuple[Fraction, int]], scale: Fraction) -> None:
    """With a base the coefficients sum to 1, whatever λ and s are: a soup of equal weights is that weight."""
    groups, at = [], 0
    for _, size in shares:
        groups.append(tuple(range(at, at + size)))
        at += size

    found = terms(tuple(share for share, _ in shares), tuple(groups), at, scale)

    assert math.isclose(math.fsum(term.coefficient for term in found), 1.0, rel_tol=1e-12, abs_tol=1e-12)
    assert [term.coefficient for term in found] == sorted(term.coefficient for term in found)
    assert all(term.coefficient for term in found)


def test_affine_and_scale(tmp_path: Path) -> None:
    """θ₀ + s·Σλᵢ(θᵢ − θ₀) for any λ: the base gets what is left."""
    family = related(2, dtype=torch.float64)
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    base = from_torch("base", family.base)
    recipe = rsoup.make_recipe(["a", "b"], mix=["1.5", "-0.25"], affine=True, scale="0.8", base="base")

    soup = cooked(recipe, sources, base)

    for name in floats(family.base):
        start, one, two = (doubles(tensors[name]) for tensors in (family.base, *family.tuned))
        expected = start + 0.8 * (1.5 * (one - start) - 0.25 * (two - start))
        assert np.allclose(expected, np.frombuffer(soup[name]), rtol=1e-12, atol=1e-14)


def with_rules(paths: list[str], rules: list[RuleRequest], **more: object) -> rsoup.Recipe:
    """A recipe with mixes of their own for some tensors."""
    asked = [Named(f"i{i}", (path,)) for i, path in enumerate(paths)]
    return make(Request(asked, uniform=True, per_tensor=rules, **more))  # type: ignore[arg-type]


def test_rules_per_tensor() -> None:
    """The first rule that applies gives a tensor its mix, by name or by layer; the others get the recipe's."""
    family = related(2, dtype=torch.float64)
    sources = [from_torch(f"c{i}", tensors) for i, tensors in enumerate(family.tuned)]
    rules = [
        RuleRequest(["1", "0"], match="*.bias"),
        RuleRequest(["0.25", "0.75"], layers="0"),
        RuleRequest(["0", "1"], match="layers.*"),
    ]

    soup = cooked(with_rules(["a", "b"], rules), sources)

    one, two = family.tuned
    assert tensor_bytes(one["layers.0.bias"]) == soup["layers.0.bias"]
    assert np.array_equal(
        0.25 * doubles(one["layers.0.weight"]) + 0.75 * doubles(two["layers.0.weight"]),
        np.frombuffer(soup["layers.0.weight"]),
    )
    assert np.array_equal(
        0.5 * doubles(one["embed.weight"]) + 0.5 * doubles(two["embed.weight"]),
        np.frombuffer(soup["embed.weight"]),
    )
    assert Rule((Fraction(1),), layers=(3, 5)).applies_to("model.layers.4.mlp.0.weight")
    assert not Rule((Fraction(1),), layers=(3, 5)).applies_to("model.embed.weight")


def test_a_rule_that_matches_nothing_is_refused() -> None:
    """A rule without a tensor is a typing error, and names what the tensors look like."""
    sources = [from_torch("c", tensors) for tensors in related(2).tuned]

    with pytest.raises(UsageError) as error:
        cooked(with_rules(["a", "b"], [RuleRequest(["1", "0"], match="modle.*")]), sources)

    assert error.value.code == "E0209"
    assert "modle.*" in error.value.message


def assert_distances(result: rsoup.MergeResult, family: Family, used: list[int] | None = None) -> None:
    """The result's distances, cosines and update error are those of float64 over all finite elements."""
    names = floats(family.base)
    base = np.concatenate([doubles(family.base[n]) for n in names])
    deltas = [np.concatenate([doubles(tensors[n]) for n in names]) for tensors in family.tuned]
    good = np.isfinite(base)
    deltas = [delta[good] - base[good] for delta in deltas]
    found = result.distances
    assert found is not None
    for i, delta in enumerate(deltas):
        if used is not None and i not in used:
            assert found.absolute[i] is None
            assert found.relative[i] is None
            assert all(value is None for value in found.cosine[i])
            continue
        absolute, relative = found.absolute[i], found.relative[i]
        assert absolute is not None
        assert relative is not None
        assert math.isclose(np.linalg.norm(delta), absolute, rel_tol=1e-12)
        assert math.isclose(np.linalg.norm(delta) / np.linalg.norm(base[good]), relative, rel_tol=1e-12)
        for j, other in enumerate(deltas):
            cosine = found.cosine[i][j]
            assert cosine == found.cosine[j][i]
            if used is None or j in used:
                assert cosine is not None
                expected = delta @ other / (np.linalg.norm(delta) * np.linalg.norm(other))
                assert math.isclose(expected, cosine, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "mix", [["0.2", "0.3", "0.5"], ["0.5", "0", "0.5"], ["0", "1", "0"], ["-1", "0.5", "2"]]
)
def test_distances_from_the_base(tmp_path: Path, dtype: torch.dtype, mix: list[str]) -> None:
    """‖δᵢ‖, ‖δᵢ‖/‖θ₀‖ and cos(δᵢ, δⱼ) in float64; of what has λ = 0, and so was not read, nothing is known."""
    family = related(3, dtype=dtype)
    base, *paths = written(tmp_path, family)
    recipe = rsoup.make_recipe(paths, mix=mix, base=base, affine="-1" in mix)

    result = rsoup.merge(recipe, tmp_path / "soup.safetensors", threads=2)

    assert_distances(result, family, [i for i, share in enumerate(mix) if share != "0"])


@pytest.mark.fault("F15")
def test_distance_zero_iff_equal(tmp_path: Path) -> None:
    """‖δ‖ = 0 ⟺ θ = θ₀: an ingredient that is the base is told, one that differs in one weight is not it."""
    family = related(1, dtype=torch.float32)
    nearly = {name: tensor.clone() for name, tensor in family.base.items()}
    nearly["layers.0.bias"][3] += 1e-6
    family = Family(family.base, [family.base, nearly])
    base, *paths = written(tmp_path, family)

    result = rsoup.merge(rsoup.make_recipe(paths, uniform=True, base=base), tmp_path / "soup.safetensors")

    assert result.distances is not None
    assert result.distances.relative[0] == 0.0
    assert result.distances.relative[1]
    assert result.distances.cosine[0] == (None, None)
    assert "'0' equals the base (distance 0)" in result.notes
    assert not any("'1' equals" in note for note in result.notes)


@pytest.mark.parametrize(("dtype", "low", "high"), [("keep", 0.1, 0.3), ("float32", 1e-8, 1e-4)])
def test_update_error(tmp_path: Path, dtype: str, low: float, high: float) -> None:
    """‖round(θ) − θ‖/‖θ − θ₀‖: the share of the update that the output dtype rounds away, as in float64."""
    family = related(2, step=0.01)
    base, *paths = written(tmp_path, family)
    recipe = rsoup.make_recipe(paths, mix=["0.3", "0.7"], base=base, dtype=dtype)

    result = rsoup.merge(recipe, tmp_path / "soup.safetensors")

    names = floats(family.base)
    start, one, two = (np.concatenate([doubles(t[n]) for n in names]) for t in (family.base, *family.tuned))
    exact = 0.3 * one + 0.7 * two
    soup = read_tensors(tmp_path / "soup.safetensors")
    rounded = np.concatenate([doubles(soup[n]) for n in names])
    expected = np.linalg.norm(rounded - exact) / np.linalg.norm(exact - start)
    assert result.update_error is not None
    assert math.isclose(expected, result.update_error, rel_tol=1e-6)
    assert low < result.update_error < high


@pytest.mark.parametrize("kind", ["numpy", "compiled"])
def test_gram_of_rows(kind: Kind) -> None:
    """`products` is the upper triangle of R·Rᵀ; `unfold` its inverse; `grouped` that of the groups' means."""
    if kind == "compiled":
        pytest.importorskip("rsoup.backends.compiled", reason="this installation found no C compiler")
    backend = backend_of(kind)
    theta = np.random.default_rng(0).normal(size=(4, 1000))
    stored = [(DTYPES["F64"], row.data.cast("B")) for row in theta]
    rows = np.concatenate([theta[:-1] - theta[-1], theta[-1:]])
    reference = rows @ rows.T

    gram = unfold(backend.products(stored), 4)

    assert np.allclose(reference, gram, rtol=1e-12)
    means = np.stack([rows[:2].mean(0), rows[2:3].mean(0)])
    assert np.allclose(means @ means.T, grouped(gram, [(0, 1), (2,)]), rtol=1e-12)
    theta[1, 7] = math.nan
    theta[3, 9] = math.inf
    theta[0, 11], theta[3, 11] = 1.7e308, -1.7e308  # finite, and their difference is not
    good = rows[:, [i for i in range(1000) if i not in (7, 9, 11)]]
    assert np.allclose(good @ good.T, unfold(finite_products(backend, stored), 4), rtol=1e-12)


def test_float64_that_is_equal_everywhere_loses_nothing_to_rounding() -> None:
    """Where λ would carry the sum of equal numbers beyond float64, the soup is that number and the update error 0."""
    big = torch.full((8,), 1e308, dtype=torch.float64)
    family = [{"big": big, "w": torch.arange(4, dtype=torch.float64) + i} for i in range(3)]
    base, one, two = (
        from_torch(name, tensors) for name, tensors in zip(("base", "a", "b"), family, strict=True)
    )
    recipe = rsoup.make_recipe(["a", "b"], mix=["0.5", "0.5"], base="base", scale="3")

    records: list[RunRecord] = []
    plan = plans.make(recipe, [one, two], base)
    cook(
        plan,
        [one, two, base],
        MemorySink(plan.header),
        on_block=lambda _, record: records.extend(record.runs),
    )

    assert [record.error_squared for record in records] == [0.0] * len(records)
    assert cooked(recipe, [one, two], base)["big"] == tensor_bytes(big)


def test_what_was_read_in_different_tensors_has_no_cosine() -> None:
    """cos(δᵢ, δⱼ) is known only where both were read in the same tensors; a relative distance is of its own."""
    total = GramSum(3)
    total.add((0, 1), [1.0, 0.5, 0.1, 4.0, 0.1, 100.0])
    total.add((0, 2), [3.0, 0.5, 0.1, 9.0, 0.1, 44.0])

    found = total.distances()

    assert found.absolute == (2.0, 2.0, 3.0)
    assert found.relative == (2 / 12, 2 / 10, 3 / math.sqrt(44))
    assert found.cosine == ((1.0, None, None), (None, 1.0, None), (None, None, 1.0))


def test_distances_beyond_float64_are_unknown() -> None:
    """What float64 cannot square is unknown rather than infinite; only a base of zeros is infinitely far."""
    total = GramSum(2)
    total.add((0, 1), [math.inf, math.inf, 0.0, 1.0, 0.0, 0.0])

    found = total.distances()

    assert found.absolute == (None, 1.0)
    assert found.relative == (None, math.inf)
    assert found.cosine[0] == (None, None)


def test_a_base_of_zeros(tmp_path: Path) -> None:
    """From a base of zeros everything is infinitely far: refused, and where that is allowed, told as unknown."""
    base = write_file(tmp_path / "base.safetensors", {"w": torch.zeros(8)})
    one = write_file(tmp_path / "one.safetensors", {"w": torch.ones(8)})

    with pytest.raises(IncompatibleError) as error:
        rsoup.merge(rsoup.make_recipe([one], base=base), tmp_path / "soup.safetensors")
    result = rsoup.merge(
        rsoup.make_recipe([one], base=base, allow=["distance"]), tmp_path / "soup.safetensors"
    )

    assert error.value.code == "E0306"
    checks = result.manifest["checks"]
    assert isinstance(checks, dict)
    assert checks["distances"]["relative"] == [None]
    assert checks["distances"]["absolute"] == [math.sqrt(8)]


@pytest.mark.fault("F11")
def test_a_base_with_nan_is_refused(tmp_path: Path) -> None:
    """NaN in the base alone would make every distance NaN, which no threshold refuses: it is refused."""
    family = related(2)
    family.base["layers.0.bias"][5] = math.nan
    base, *paths = written(tmp_path, family)

    with pytest.raises(IncompatibleError) as error:
        rsoup.merge(rsoup.make_recipe(paths, uniform=True, base=base), tmp_path / "soup.safetensors")

    assert error.value.code == "E0304"
    assert "'layers.0.bias' of 'base'" in error.value.message
    assert not (tmp_path / "soup.safetensors").exists()


def test_the_methods_are_the_recipes() -> None:
    """What a recipe may name and what there is are the same methods, each with its formula and source."""
    assert tuple(METHODS) == METHOD_NAMES
    for method in METHODS.values():
        assert method.formula
        assert method.source
        assert method.coefficients.__doc__
