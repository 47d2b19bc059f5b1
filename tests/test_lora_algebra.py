"""The small algebra of adapters against dense float64 references: products, decompositions, ranks."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsoup.lora.algebra import (
    Stack,
    bases,
    core,
    difference_norm,
    inner_products,
    numerical_rank,
    spectrum,
    tail,
    truncated,
)
from rsoup.lora.beginning import beginning
from rsoup.lora.product import Product, part_bits, row_norms
from rsoup.lora.ranks import choose


def drawn(*shape: int, seed: int = 0, spread: float = 0.0) -> torch.Tensor:
    """Normal float64 numbers that float32 holds, `spread` powers of e apart."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(spread * torch.randn(shape, generator=generator))
    return (torch.randn(shape, generator=generator) * scale).to(torch.float64)


def multiplied(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left · right as rsoup takes it."""
    out, spare = (torch.empty(left.shape[0], right.shape[1], dtype=torch.float64) for _ in range(2))
    Product(left, right).rows(slice(0, len(left)), slice(0, right.shape[1]), out, spare)
    return out


@pytest.mark.parametrize("rank", [1, 2, 7, 16, 64, 500])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_products_are_near_the_true_ones(rank: int, spread: float) -> None:
    """|L·R − exact| ≤ rank·2⁻⁴⁴·max|row|·max|column|, the exact values taken in fractions."""
    left, right = drawn(3, rank, seed=1, spread=spread), drawn(rank, 4, seed=2, spread=spread)

    found = multiplied(left, right)

    for i in range(3):
        for j in range(4):
            pairs = zip(left[i].tolist(), right[:, j].tolist(), strict=True)
            exact = sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))
            bound = rank * 2.0**-41 * float(left[i].abs().max()) * float(right[:, j].abs().max())
            assert abs(float(exact - Fraction(float(found[i, j])))) <= bound


@pytest.mark.parametrize("rank", [1, 3, 16, 129])
def test_the_order_of_a_product_changes_no_bit(rank: int) -> None:
    """Σₖ in any order, any rows and columns at a time: the same bits."""
    left, right = drawn(40, rank, seed=3, spread=2.0), drawn(rank, 50, seed=4, spread=2.0)
    whole = multiplied(left, right)
    order = torch.randperm(rank, generator=torch.Generator().manual_seed(5))

    assert torch.equal(whole, multiplied(left[:, order], right[order]))
    part, spare = (torch.empty(7, 20, dtype=torch.float64) for _ in range(2))
    Product(left, right).rows(slice(5, 12), slice(10, 30), part, spare)
    assert torch.equal(whole[5:12, 10:30], part)


def test_products_of_zeros_and_of_extremes() -> None:
    """Zero rows give zeros; numbers near the ends of float32 neither overflow nor vanish."""
    left = torch.tensor([[0.0, 0.0], [3e38, -1e38], [1e-45, 0.0]], dtype=torch.float64)
    right = torch.tensor([[2.0, 0.0], [1e-3, 3e-38]], dtype=torch.float64)

    assert torch.allclose(multiplied(left, right), left @ right, rtol=1e-12, atol=0.0)


@given(st.integers(1, 1 << 20))
def test_sums_of_parts_fit_into_float64(rank: int) -> None:
    """2·rank products of two parts of b bits each: 2·rank·2^(2b) ≤ 2⁵³."""
    assert 2 * rank * 4 ** part_bits(rank) <= 2**53


def test_row_norms() -> None:
    """√Σx² of every row, for widths that are no power of two."""
    for width in (1, 2, 3, 5, 64, 77):
        matrix = drawn(6, width, seed=width)
        assert torch.allclose(row_norms(matrix.clone()), matrix.norm(dim=1), rtol=1e-14)


# --- decompositions

SHAPES = [(30, 20, (4, 4)), (12, 40, (8, 3, 2)), (6, 5, (4, 4)), (16, 16, (16,)), (9, 9, (1,))]


def stacked(rows: int, columns: int, ranks: tuple[int, ...]) -> tuple[Stack, torch.Tensor, torch.Tensor]:
    """(a stack, its coefficients by column, the dense sum)."""
    b = drawn(rows, sum(ranks), seed=1)
    a = drawn(sum(ranks), columns, seed=2)
    owner = tuple(number for number, rank in enumerate(ranks) for _ in range(rank))
    mix = torch.tensor([0.7, -0.4, 1.3][: len(ranks)], dtype=torch.float64)
    coefficients = mix[torch.tensor(owner)]
    return Stack(b, a, owner), coefficients, (b * coefficients) @ a


@pytest.mark.parametrize(("rows", "columns", "ranks"), SHAPES)
def test_spectra_are_those_of_the_dense_sum(rows: int, columns: int, ranks: tuple[int, ...]) -> None:
    """The singular values of Σ cᵢBᵢAᵢ, from the cores."""
    stack, coefficients, dense = stacked(rows, columns, ranks)
    wanted = torch.linalg.svdvals(dense)

    found = torch.tensor(spectrum(core(stack), coefficients), dtype=torch.float64)

    size = min(len(found), len(wanted))
    assert torch.allclose(found[:size], wanted[:size], atol=1e-12)
    assert not found[size:].any() or found[size:].max() < 1e-12


@pytest.mark.parametrize(("rows", "columns", "ranks"), SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_truncation_is_the_best_there_is(rows: int, columns: int, ranks: tuple[int, ...], rank: int) -> None:
    """‖sum − B·A‖ = √Σ_{k>r} σ²: the optimum (Eckart–Young), and what the tail says."""
    stack, coefficients, dense = stacked(rows, columns, ranks)
    values = torch.linalg.svdvals(dense).tolist()

    b, a = truncated(bases(stack), coefficients, rank)

    assert b.shape[1] == a.shape[0] <= rank
    assert float((dense - b @ a).norm()) == pytest.approx(tail(values, rank), abs=1e-12)


@pytest.mark.parametrize(("rows", "columns", "ranks"), SHAPES)
def test_inner_products_are_those_of_the_dense_parts(rows: int, columns: int, ranks: tuple[int, ...]) -> None:
    """⟨sᵢBᵢAᵢ, sⱼBⱼAⱼ⟩ without a dense matrix."""
    stack, _, _ = stacked(rows, columns, ranks)
    scalings = [0.5 + owner for owner in stack.owner]
    dense = []
    for number in range(len(ranks)):
        mine = torch.tensor([owner == number for owner in stack.owner])
        dense.append((0.5 + number) * stack.b[:, mine] @ stack.a[mine])

    found = inner_products(core(stack), scalings, len(ranks))

    for i, one in enumerate(dense):
        for j, other in enumerate(dense):
            assert found[i][j] == pytest.approx(float((one * other).sum()), rel=1e-11, abs=1e-11)


def test_the_difference_of_two_products() -> None:
    """‖B₁A₁ − B₂A₂‖ from the factors."""
    one = (drawn(9, 3, seed=1), drawn(3, 7, seed=2))
    other = (drawn(9, 2, seed=3), drawn(2, 7, seed=4))

    assert difference_norm(one, other) == pytest.approx(
        float((one[0] @ one[1] - other[0] @ other[1]).norm()), rel=1e-12
    )
    assert difference_norm(one, one) < 1e-12


def test_numerical_rank() -> None:
    """Values above the tolerance, and at least one."""
    assert numerical_rank([3.0, 1.0, 1e-9], 1e-7) == 2
    assert numerical_rank([0.0, 0.0], 1e-7) == 1
    assert numerical_rank([], 1e-7) == 1


def test_pissa_and_olora_take_out_what_peft_takes_out() -> None:
    """PiSSA: the best approximation of rank r; OLoRA: s times the projection on the first r columns."""
    weight = drawn(10, 8, seed=6)
    u, values, vh = torch.linalg.svd(weight)

    b, a = beginning("pissa", weight, 3, 2.0)
    assert torch.allclose(2.0 * b @ a, (u[:, :3] * values[:3]) @ vh[:3], atol=1e-12)

    b, a = beginning("olora", weight, 3, 2.0)
    q, r = torch.linalg.qr(weight)
    assert torch.allclose(b @ a, q[:, :3] @ r[:3], atol=1e-12)


# --- ranks

SPECTRA = {"one": ((4.0, 2.0, 1.0, 0.0),), "two": ((3.0, 0.5, 0.1, 0.05),)}
STACKED = {"one": 4, "two": 4}


def test_exact_ranks_leave_out_what_is_numerically_zero() -> None:
    """A module whose last value is zero needs one rank less; the error is 0."""
    found = choose(SPECTRA, STACKED, rank=None, max_error=None)

    assert found.chosen == {"one": 3, "two": 4}
    assert found.is_exact
    assert found.error == 0.0
    assert found.norm == pytest.approx((16 + 4 + 1 + 9 + 0.25 + 0.01 + 0.0025) ** 0.5)


def test_one_rank_for_all() -> None:
    """`rank` caps every module; the error is the tails' share."""
    found = choose(SPECTRA, STACKED, rank=2, max_error=None)

    assert found.chosen == {"one": 2, "two": 2}
    assert found.error == pytest.approx(((1 + 0.01 + 0.0025) / 30.2625) ** 0.5)
    assert [name for name, _ in found.worst] == ["one", "two"]
    assert dict(found.table)[2] == pytest.approx(found.error)


@pytest.mark.parametrize("max_error", ["0.5", "0.2", "0.19", "0.05", "0.01", "0.001"])
def test_the_fewest_ranks_within_an_error(max_error: str) -> None:
    """No rank could be left out anywhere without exceeding the error; the error itself holds."""
    found = choose(SPECTRA, STACKED, rank=None, max_error=max_error)

    assert found.error <= float(max_error)
    for name, rank in found.chosen.items():
        if rank > 1:
            fewer = {**found.chosen, name: rank - 1}
            lost = sum(tail(SPECTRA[n][0], r) ** 2 for n, r in fewer.items())
            assert (lost**0.5) / found.norm > float(max_error)


def test_ranks_of_modules_with_experts_are_shared() -> None:
    """All experts of a module have one rank: the highest that one of them needs."""
    found = choose({"moe": ((1.0, 0.0), (1.0, 0.5))}, {"moe": 2}, rank=None, max_error=None)

    assert found.chosen == {"moe": 2}


def test_an_update_of_nothing_keeps_one_rank() -> None:
    """All zeros: PEFT knows no rank 0."""
    found = choose({"zero": ((0.0, 0.0),)}, {"zero": 2}, rank=None, max_error="0.1")

    assert found.chosen == {"zero": 1}
    assert found.error == 0.0
