"""The transfer matrix: definitions, simulated evaluations and scipy's assignment as oracles, published matrices."""

from __future__ import annotations

import csv
import json
import math
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from rsoup.errors import UsageError
from rsoup.front.assignment import assign
from rsoup.front.transfer import Owners, Transfer, owners_of, transfer

DATA = (
    Path(__file__).parent / "data" / "fusion-bench"
)  # tanganke/fusion_bench, MIT: see the LICENSE beside the files
UP = (True, True)


def published() -> tuple[list[str], list[float], list[list[float]]]:
    """(tasks, accuracies of the pre-trained CLIP ViT-B/32, those of its eight fine-tunes): docs/modelpool/clip_vit.md."""
    with (DATA / "clip-vit-b32.csv").open() as file:
        names, base, *rows = csv.reader(file)
    assert [row[0] for row in rows] == names[1:]
    return names[1:], [float(v) for v in base[1:]], [[float(v) for v in row[1:]] for row in rows]


def test_the_published_matrix_of_eight_tasks() -> None:
    """Digits help each other, s = ½(33.5/51.3 + 18.5/65.7); fine-tunes for cars and for satellites harm each other."""
    tasks, base, values = published()
    up = [True] * 8

    found = transfer(values, up, owners_of(tasks, tasks, values, up), base=base)

    kin = {tuple(tasks[k] for k in one.rewards): one for one in found.kinships}
    assert len(kin) == 28
    assert max(found.kinships, key=lambda one: one.similarity) == kin["SVHN", "MNIST"]
    assert kin["SVHN", "MNIST"].similarity == pytest.approx((33.5 / 51.3 + 18.5 / 65.7) / 2)
    assert kin["Cars", "RESISC45"].similarity == pytest.approx((-9.8 / 34.5 - 12.6 / 18.5) / 2)
    assert (kin["Cars", "RESISC45"].antagonistic, kin["SVHN", "MNIST"].antagonistic) == (True, False)
    assert kin["RESISC45", "EuroSAT"].antagonistic is False  # one helps (56.9 over 46.0), the other harms
    assert {one.clear for one in found.kinships} == {None}
    assert found.how.endswith("1 the reward's own expert")


def test_a_published_matrix_without_its_base() -> None:
    """The experts' range stands in: every g is within [0, 1], no harm can be seen, and it is said."""
    whole = json.loads((DATA / "task_singular_vector_results_clip-vit-base-patch32_TA8.json").read_text())
    tasks = [name for name in whole if name != "merged"]
    for metric, up in (("accuracy", True), ("loss", False)):
        values = [[whole[i][k][metric] for k in tasks] for i in tasks]
        owners = owners_of([f"model-{i}" for i in range(8)], tasks, values, [up] * 8)

        found = transfer(values, [up] * 8, owners)

        assert owners == Owners(tuple(range(8)), "by the best scores")
        assert all(g is not None and 0 <= g <= 1 for row in found.gains for g in row)
        assert {one.antagonistic for one in found.kinships} == {None}
        assert "harm cannot be seen" in found.how


@settings(max_examples=60)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6), st.data())
def test_gains_and_similarities_are_their_definitions(
    experts: int, rewards: int, seed: int, data: st.DataObject
) -> None:
    """g = (T − T₀)/(T_own − T₀), s = ½(g + g), undefined exactly where the own expert is no better; whatever the units."""
    generator = np.random.default_rng(seed)
    values, base = generator.normal(size=(experts, rewards)), generator.normal(size=rewards)
    up = data.draw(st.lists(st.booleans(), min_size=rewards, max_size=rewards))
    owner = data.draw(
        st.lists(st.one_of(st.none(), st.integers(0, experts - 1)), min_size=rewards, max_size=rewards)
    )
    owners = Owners(tuple(owner), "as given")

    found = transfer(values.tolist(), up, owners, base=base.tolist())

    gain = np.full((experts, rewards), np.nan)
    for k, own in enumerate(owner):
        if own is not None and (values[own, k] > base[k]) == up[k]:
            gain[:, k] = (values[:, k] - base[k]) / (values[own, k] - base[k])
    assert np.allclose(np.array(found.gains, dtype=float), gain, equal_nan=True)
    assert set(found.undefined) == {k for k in range(rewards) if np.isnan(gain[0, k])}
    similar = np.array(found.similarity(), dtype=float)
    assert np.allclose(similar, similar.T, equal_nan=True)
    for one in found.kinships:
        i, k = one.rewards
        assert one.similarity == pytest.approx((gain[owner[i], k] + gain[owner[k], i]) / 2)
        assert one.antagonistic == (gain[owner[i], k] < 0 and gain[owner[k], i] < 0)
        assert similar[i, k] == one.similarity
    scale, shift = 10 ** generator.uniform(-3, 3, rewards), generator.normal(size=rewards)
    turned = np.array(
        [1 if keep else -1 for keep in data.draw(st.lists(st.booleans(), min_size=rewards, max_size=rewards))]
    )
    other = transfer(
        (values * scale * turned + shift).tolist(), (np.array(up) == (turned > 0)).tolist(), owners,
        base=(base * scale * turned + shift).tolist(),
    )  # fmt: skip
    assert np.allclose(np.array(other.gains, dtype=float), gain, equal_nan=True, atol=1e-6, rtol=1e-6)


def test_standard_errors_are_those_of_simulated_evaluations() -> None:
    """20 000 noisy evaluations: the spread of g and of s is what the delta method says, to 3 %."""
    generator = np.random.default_rng(11)
    values, base = np.array([[3.0, -0.5], [1.0, 4.0]]), np.array([1.5, 0.5])
    errors, zero = np.array([[0.03, 0.02], [0.05, 0.04]]), np.array([0.02, 0.06])
    owners = Owners((0, 1), "as given")
    found = transfer(
        values.tolist(), UP, owners, base=base.tolist(), errors=errors.tolist(), base_errors=zero.tolist()
    )

    drawn = values + errors * generator.normal(size=(20000, 2, 2))
    grounds = base + zero * generator.normal(size=(20000, 2))
    first = (drawn[:, 1, 0] - grounds[:, 0]) / (drawn[:, 0, 0] - grounds[:, 0])
    second = (drawn[:, 0, 1] - grounds[:, 1]) / (drawn[:, 1, 1] - grounds[:, 1])

    assert found.errors[1][0] == pytest.approx(first.std(), rel=0.03)
    assert found.errors[0][1] == pytest.approx(second.std(), rel=0.03)
    assert (found.errors[0][0], found.errors[1][1]) == (0, 0)
    assert found.kinships[0].error == pytest.approx(((first + second) / 2).std(), rel=0.03)
    assert (found.kinships[0].antagonistic, found.kinships[0].clear, found.unsure) == (True, True, ())


def antagonists(error: float | None, base_error: float | None = 0.0) -> Transfer:
    """Two experts that lose 0.1 where the other gains 1."""
    errors = [[error, error]] * 2
    return transfer(
        [[1.0, -0.1], [-0.1, 1.0]], UP, Owners((0, 1), ""), base=[0.0, 0.0], errors=errors, base_errors=[base_error] * 2
    )  # fmt: skip


def test_antagonism_is_clear_beyond_two_standard_errors() -> None:
    """−0.1 ± 0.04 twice is clear, ± 0.06 is not, unknown errors leave it open; an own gain within the noise is unsure."""
    assert (antagonists(0.04).kinships[0].clear, antagonists(0.06).kinships[0].clear) == (True, False)
    assert antagonists(0.06).kinships[0].antagonistic is True
    assert (antagonists(None).kinships[0].clear, antagonists(None).errors[0]) == (None, (None, None))
    assert (antagonists(0.04, None).kinships[0].error, antagonists(0.04, None).errors[1]) == (
        None,
        (None, None),
    )
    assert (antagonists(0.49).unsure, antagonists(0.51).unsure) == ((), (0, 1))


def test_what_is_undefined_says_why() -> None:
    """No expert; an own expert that is worse than the base, or the worst of all; the others go on."""
    values = [[1.0, 2.0, 0.0], [2.0, 1.0, 5.0]]
    below = transfer(values, (True,) * 3, Owners((0, 0, None), ""), base=[1.5, 0.0, 0.0])
    alone = transfer([[1.0]], (True,), Owners((0,), ""))

    assert below.undefined == {
        0: "its own expert is no better than the base",
        2: "no ingredient is its expert",
    }
    assert below.gains == ((None, 1.0, None), (None, 0.5, None))
    assert below.similarity() == ((None, None, None), (None, 1.0, None), (None, None, None))
    assert below.kinships == ()
    assert alone.undefined == {0: "its own expert is no better than the worst expert"}


def test_without_a_base_the_worst_expert_has_no_error() -> None:
    """It is compared with itself: g = 0 ± 0; a third expert's error has all three in it."""
    values, errors = [[4.0], [0.0], [1.0]], [[0.3], [0.4], [0.5]]

    found = transfer(values, (True,), Owners((0,), ""), errors=errors)

    assert [row[0] for row in found.gains] == [1, 0, 0.25]
    third = math.sqrt(0.5**2 + (0.25 * 0.3) ** 2 + (0.75 * 0.4) ** 2) / 4
    assert [row[0] for row in found.errors] == [0, 0, pytest.approx(third)]


def test_owners_are_given_then_named_then_the_best() -> None:
    """Each way in its turn, and it is said; two rewards may be given one expert, but none is chosen twice."""
    values = [[9.0, 1.0, 0.0], [8.0, 0.0, 1.0], [0.0, 0.5, 0.9]]
    up = [True] * 3

    assert owners_of(["x", "y", "z"], ["a", "b", "c"], values, up) == Owners((1, 0, 2), "by the best scores")
    assert owners_of(["a", "y", "z"], ["a", "b", "c"], values, up) == Owners(
        (0, 2, 1), "by name, then by the best scores"
    )
    assert owners_of(["a", "b", "c"], ["a", "b", "c"], values, up) == Owners((0, 1, 2), "by name")
    given = owners_of(["a", "y", "z"], ["a", "b", "c"], values, up, {"b": "a", "a": "a"})
    assert given == Owners((0, 0, 1), "as given, then by the best scores")
    assert owners_of(["x"], ["a", "b"], [[1.0, 1.0]], UP).of.count(None) == 1
    assert owners_of(["x", "y"], ["a"], [[1.0], [2.0]], [False]) == Owners((0,), "by the best scores")


@pytest.mark.parametrize("given", [{"none": "x"}, {"a": "none"}])
def test_given_owners_that_are_none_are_refused(given: dict[str, str]) -> None:
    """E0258 with the names there are."""
    with pytest.raises(UsageError, match="'none'") as caught:
        owners_of(["x", "y"], ["a", "b"], [[1.0, 0.0], [0.0, 1.0]], UP, given)

    assert caught.value.code == "E0258"
    assert "there are" in str(caught.value.hint)


@settings(max_examples=100)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6), st.booleans())
def test_the_assignment_is_scipys(rows: int, columns: int, seed: int, ties: bool) -> None:
    """The same greatest sum, none twice, as many as there can be, with ties and in either shape."""
    generator = np.random.default_rng(seed)
    scores = (
        generator.integers(0, 3, (rows, columns)).astype(float)
        if ties
        else generator.normal(size=(rows, columns))
    )

    found = assign(scores.tolist())

    chosen = [(row, column) for row, column in enumerate(found) if column is not None]
    assert len({column for _, column in chosen}) == len(chosen) == min(rows, columns)
    oracle = scores[linear_sum_assignment(scores, maximize=True)].sum()
    assert sum(scores[pair] for pair in chosen) == pytest.approx(oracle)


def test_the_assignment_is_the_best_of_all_permutations() -> None:
    """5 × 5 by brute force; and nothing for nothing."""
    scores = np.random.default_rng(2).normal(size=(5, 5))
    best = max(permutations(range(5)), key=lambda order: sum(scores[i, k] for i, k in enumerate(order)))

    assert assign(scores.tolist()) == list(best)
    assert assign([]) == []
    assert assign([[], []]) == [None, None]
    with pytest.raises(ValueError, match="matrix"):
        assign([[1.0], [1.0, 2.0]])


def test_what_is_no_transfer_matrix_is_refused() -> None:
    """Nothing, rows that differ, NaN, errors that are none, owners that are no ingredients."""
    good, owners = [[1.0, 0.0], [0.0, 1.0]], Owners((0, 1), "")
    for call in (
        lambda: transfer([], UP, owners),
        lambda: transfer(good, (), Owners((), "")),
        lambda: transfer([[1.0]], UP, owners),
        lambda: transfer(good, UP, owners, base=[1.0]),
        lambda: transfer([[1.0, math.nan], [0.0, 1.0]], UP, owners),
        lambda: transfer(good, UP, owners, errors=[[0.1, 0.1]]),
        lambda: transfer(good, UP, owners, errors=[[0.1, -0.1], [0.1, 0.1]]),
        lambda: transfer(good, UP, owners, base=[0.0, 0.0], base_errors=[math.nan, 0.1]),
        lambda: transfer(good, UP, Owners((0,), "")),
        lambda: transfer(good, UP, Owners((0, 2), "")),
        lambda: owners_of(["x"], ["a", "b"], good, UP),
        lambda: owners_of(["x", "y"], ["a"], good, UP),
        lambda: owners_of(["x", "y"], ["a", "b"], [[1.0, math.inf], [0.0, 1.0]], UP),
    ):
        with pytest.raises(ValueError, match=r"ingredient|row|finite|error|owners"):
            call()


def test_many_experts_take_no_time() -> None:
    """100 experts of 100 rewards, assigned and compared, in three seconds of one core."""
    values = np.random.default_rng(0).normal(size=(100, 100)) + 20 * np.eye(100)[::-1]
    names, up = [f"m{i}" for i in range(100)], [True] * 100
    began = time.process_time()

    owners = owners_of(names, [f"r{k}" for k in range(100)], values.tolist(), up)
    found = transfer(values.tolist(), up, owners, base=[-9.0] * 100)

    assert owners.of == tuple(range(99, -1, -1))
    assert len(found.kinships) == 4950
    assert time.process_time() - began < 3
