"""Points of a sweep: lattices, designs, random λ, paths, series; exact fractions on the simplex."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import AccessError, IncompatibleError, UsageError
from rsoup.names import names_for
from rsoup.recipe import Ingredient
from rsoup.request import Request
from rsoup.sweep.grid import dirichlet, lattice, lattice_size, path, points_of, scheffe, sobol
from rsoup.sweep.mixes_csv import read_mixes
from rsoup.sweep.point import Point
from rsoup.sweep.series import expand, request_at, steps_of
from rsoup.sweep.spec import Design

F = Fraction


@given(st.integers(1, 5), st.integers(2, 9))
def test_a_lattice_has_all_its_points_once(count: int, per_edge: int) -> None:
    """C(m + N − 1, N − 1) points, each Σλ = 1 exactly, all multiples of 1/m, none twice."""
    points = list(lattice(count, per_edge))
    assert len(points) == len(set(points)) == lattice_size(count, per_edge)
    assert len(points) == math.comb(per_edge - 1 + count - 1, count - 1)
    assert all(sum(mix) == 1 and min(mix) >= 0 for mix in points)
    assert all((share * (per_edge - 1)).denominator == 1 for mix in points for share in mix)


def test_a_lattice_of_two_leads_from_the_first_expert_to_the_second() -> None:
    """11 values, steps of 1/10."""
    assert list(lattice(2, 11)) == [(F(10 - i, 10), F(i, 10)) for i in range(11)]


@given(st.integers(1, 6))
def test_the_scheffe_design(count: int) -> None:
    """Vertices, midpoints of pairs and the centroid; N(N + 1)/2 + 1 points, fewer where they coincide."""
    points = scheffe(count)
    wanted = {tuple(F(int(i in s), len(s)) for i in range(count)) for k in (1, 2, count) for s in itertools.combinations(range(count), min(k, count))}  # fmt: skip
    assert set(points) == wanted
    assert len(points) == len(wanted)


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 10))
def test_random_points_are_exact_and_seeded(count: int, number: int, seed: int) -> None:
    """Σλ = 1 exactly, nothing negative, the same for the same seed."""
    for draw in (dirichlet, sobol):
        points = draw(count, number, seed)
        assert len(points) == number
        assert all(sum(mix) == 1 and min(mix) >= 0 for mix in points)
        assert points == draw(count, number, seed)


def test_dirichlet_is_uniform_on_the_simplex() -> None:
    """E λᵢ = 1/3 and Var λᵢ = 2/(9·4) for N = 3, within five standard errors of 4000 draws."""
    drawn = dirichlet(3, 4000, 1)
    for i in range(3):
        values = [float(mix[i]) for mix in drawn]
        mean = sum(values) / len(values)
        assert abs(mean - 1 / 3) < 5 * math.sqrt(1 / 18 / 4000)
        assert abs(sum((v - mean) ** 2 for v in values) / 4000 - 1 / 18) < 0.005


def test_sobol_is_more_even_than_random() -> None:
    """The largest hole of 64 values on a segment is smaller than that of random ones."""

    def hole(mixes: list[tuple[Fraction, ...]]) -> float:
        ends = sorted([0.0, 1.0, *(float(mix[0]) for mix in mixes)])
        return max(b - a for a, b in itertools.pairwise(ends))

    assert hole(sobol(2, 64, 0)) < hole(dirichlet(2, 64, 0)) / 1.5


def test_a_path_through_a_waypoint() -> None:
    """θ₁ → θ_M → θ₂: each leg has its values, the waypoint is there once."""
    found = path([0, 2, 1], 3, 3)
    assert found == [(1, 0, 0), (F(1, 2), 0, F(1, 2)), (0, 0, 1), (0, F(1, 2), F(1, 2)), (0, 1, 0)]
    design = Design(grid=3, waypoints=("m",))
    assert [point.mix for point in points_of(design, ["a", "b", "m"])] == found


def test_parts_add_up_and_duplicates_count_once() -> None:
    """A grid, a list and the Scheffé design share points; each scale has all of them."""
    design = Design(grid=3, scheffe=True, mixes=((F(1, 3), F(2, 3)),), scales=(F(1), F(1, 2)))
    points = points_of(design, ["a", "b"])
    assert len(points) == len(set(points)) == 2 * 4
    assert {point.scale for point in points} == {F(1), F(1, 2)}


@pytest.mark.parametrize(
    ("design", "said"),
    [
        (Design(), "no λ"),
        (Design(grid=1), "at least two"),
        (Design(grid=3, waypoints=("a",)), "two experts"),
    ],
)
def test_designs_that_mean_nothing(design: Design, said: str) -> None:
    """Refused, with what to type."""
    with pytest.raises(UsageError) as refused:
        points_of(design, ["a", "b"])
    assert refused.value.code == "E0250"
    assert said in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.fault("J17")
def test_a_billion_points_are_refused_before_they_are_made() -> None:
    """The count is computed, not enumerated."""
    with pytest.raises(UsageError, match="is the most"):
        points_of(Design(grid=1000), list("abcdef"))


@given(
    st.lists(st.fractions(-2, 2, max_denominator=50), min_size=1, max_size=60),
    st.fractions(0, 2),
    st.none() | st.integers(0, 9),
)
def test_names_are_plain_and_their_own(mix: list[Fraction], scale: Fraction, step: int | None) -> None:
    """A point's name is a folder's: no slash, no leading dash, short, and equal only for equal points."""
    point = Point(tuple(mix), scale, step)
    assert "/" not in point.name
    assert not point.name.startswith("-")
    assert len(point.name) <= 120
    other = Point((*mix[:-1], mix[-1] + 1), scale, step)
    assert other.name != point.name


def test_series_are_paired_by_step(tmp_path: Path) -> None:
    """`run/checkpoint-*` is a front per step; steps that only some have are left out, and that is said."""
    for name, steps in (("a", (5, 10, 20)), ("b", (10, 20, 30))):
        for step in steps:
            (tmp_path / name / f"checkpoint-{step}").mkdir(parents=True)
    (tmp_path / "a" / "checkpoint-last").mkdir()
    paths = {name: expand(str(tmp_path / name / "checkpoint-*")) for name in "ab"}
    assert list(paths["a"]) == [5, 10, 20]
    steps, notes = steps_of(paths)
    assert steps == (10, 20)
    assert "5, 30" in notes[0]
    request = Request([Ingredient("a", ("x*",)), Ingredient("c", ("same",))])
    found = request_at(request, {"a": paths["a"]}, 10)
    assert [i.checkpoints[0] for i in found.ingredients] == [paths["a"][10], "same"]


def test_series_are_called_by_their_run() -> None:
    """`helpful/checkpoint-*` is helpful, whatever its checkpoints are called."""
    assert names_for(["x/helpful/checkpoint-*", "x/harmless/checkpoint-*"]) == ["helpful", "harmless"]
    assert names_for(["checkpoint-*"]) == ["checkpoint-*"]


def test_series_that_cannot_be_paired(tmp_path: Path) -> None:
    """Nothing there, nothing in common, a pattern that is none, a step twice."""
    with pytest.raises(AccessError):
        expand(str(tmp_path / "checkpoint-*"))
    with pytest.raises(UsageError) as refused:
        expand("run*/checkpoint-*")
    assert refused.value.code == "E0251"
    with pytest.raises(IncompatibleError) as apart:
        steps_of({"a": {1: "x"}, "b": {2: "y"}})
    assert apart.value.code == "E0314"
    for name in ("s-1", "s-01"):
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="two checkpoints of step 1"):
        expand(str(tmp_path / "s-*"))


def csv_of(tmp_path: Path, text: str | bytes) -> str:
    """A file with this text."""
    file = tmp_path / "points.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


AB = Request([Ingredient("a", ("x",)), Ingredient("b", ("y",))])


def test_mixes_from_a_csv_file(tmp_path: Path) -> None:
    """Columns in any order, exact decimals and fractions, blank lines and a byte order mark."""
    text = "\ufefflambda_b,a\n0.7, 0.3\n\n2/3,1/3\n"
    assert read_mixes(csv_of(tmp_path, text), AB) == ((F(3, 10), F(7, 10)), (F(1, 3), F(2, 3)))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "E0236"),
        ("a,b\n", "E0236"),
        ("a,c\n1,0\n", "E0236"),
        ("a,a\n1,0\n", "E0236"),
        ("a;b\n1;0\n", "E0236"),
        ("a,b\n1\n", "E0236"),
        ('a,b\n"1,0\n', "E0236"),
        (b"a,b\n\xff,1\n", "E0236"),
        ("a,b\n0.3,0.3\n", "E0203"),
        ("a,b\nnan,1\n", "E0201"),
        ("a,b\n-1,2\n", "E0204"),
    ],
)
def test_csv_files_that_are_refused(tmp_path: Path, text: str | bytes, code: str) -> None:
    """Each with its file, and the line where there is one."""
    with pytest.raises(UsageError) as refused:
        read_mixes(csv_of(tmp_path, text), AB)
    assert refused.value.code == code
    assert "points.csv" in (refused.value.where or "")
