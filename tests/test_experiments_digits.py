"""The experiments' shared code on made-up cells, and one tiny cell of digits from its training to its page."""

from __future__ import annotations

import importlib
import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent / "recipes" / "experiments"
SHARED = ("cells", "running", "wording", "evidence", "pictures", "index")
DIGITS = ("plan", "world", "train", "tables", "figures", "run", "summary")


def _loaded() -> SimpleNamespace:
    """The modules of the recipe; those that other recipes have by the same name are forgotten again."""
    before = list(sys.path)
    others = {name: sys.modules.pop(name) for name in DIGITS if name in sys.modules}
    sys.path[:0] = [str(ROOT / "digits"), str(ROOT)]
    try:
        found = {name: importlib.import_module(name) for name in (*SHARED, *DIGITS)}
    finally:
        sys.path[:] = before
        for name in DIGITS:
            sys.modules.pop(name, None)
        sys.modules.update(others)
    assert all(isinstance(one, ModuleType) for one in found.values())
    return SimpleNamespace(**found)


code = _loaded()
HALF = Fraction(1, 2)


def cell(seed: int, gap: float = 0.0, noise: float = 0.0, count: int = 11):
    """A cell whose soups lie on quadratics around their experts, with λ* = μ, and whose MORL is better by `gap`."""
    generator = random.Random(seed)

    def point(share: Fraction, up: float, label: str = "", *, own: bool = True):
        t = float(share)
        select = (1 - t * t + up, 1 - (1 - t) ** 2 + up)
        report = tuple(value + generator.uniform(-noise, noise) for value in select)
        mix = (1 - share, share) if own else None
        return code.cells.Point(label, mix, select, report, (None, None), (None, None))

    soups = tuple(point(Fraction(k, 40), 0.0) for k in range(41))
    morl = tuple(
        point(Fraction(k, count - 1), gap * (0 < k < count - 1), f"μ {k}", own=False) for k in range(count)
    )
    return code.cells.Cell(
        f"c-{seed}", "n2", seed, None, ("r1", "r2"), (True, True), {"soups": soups, "morl": morl},
        {"soups": 2.0, "morl": float(count)}, {},
    )  # fmt: skip


# --- expected rewards and the decision


def test_chosen_and_reported_on_one_split_is_the_exact_expected_reward() -> None:
    """promised = E max Σ μp where report = select, within the step of the preferences."""
    one = cell(0)
    assert code.evidence.promised(one, one.sets["soups"]) == pytest.approx(
        code.evidence.expected(one, one.sets["soups"]), abs=1e-6
    )
    assert code.evidence.promised(one, one.experts) == pytest.approx(0.75, abs=1e-6)
    assert code.evidence.best_single(one) == pytest.approx(0.5)


def test_what_noise_chooses_is_not_what_it_reports() -> None:
    """Of points that are equal but for noise, the chosen one is worth the mean on the other split, not the largest."""
    generator = random.Random(1)
    one = cell(0)
    noisy = [
        code.cells.Point(
            "", None, (0.5 + generator.gauss(0, 0.1),) * 2, (0.5, 0.5), (None, None), (None, None)
        )
        for _ in range(50)
    ]
    assert code.evidence.expected(one, noisy) > 0.6
    assert code.evidence.promised(one, noisy) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0.0, "better"), (0.01, "match"), (0.02, "match"), (0.2, "worse")]
)
def test_the_verdict_follows_the_gap(gap: float, verdict: str) -> None:
    """Better above 0, match within a tenth of what the others gain, worse beyond."""
    cells = [cell(seed, gap, noise=0.004) for seed in range(12)]
    assert code.evidence.against(cells)[-1].decision.verdict == verdict


def test_fewer_seeds_than_the_rule_asks_for_decide_nothing() -> None:
    """Nine seeds are inconclusive, whatever they say; one has no interval at all."""
    assert (
        code.evidence.against([cell(seed, 0.5) for seed in range(9)])[-1].decision.verdict == "inconclusive"
    )
    assert code.evidence.against([cell(0)])[-1].decision is None


def test_against_fewer_trainings_soups_are_better_off() -> None:
    """Nested subsets: the advantage over 2, 3, 6 and 11 of one front falls; with a point per λ both are one front."""
    curve = {row.trainings: row.differences[0] for row in code.evidence.against([cell(0)])}
    assert curve[2] > curve[3] > curve[6] > curve[11] > 0


def test_on_their_assumptions_the_rules_keep_all() -> None:
    """Quadratic rewards: λ = μ, λ*, and the surrogate of three points lose nothing; validation of two, everything."""
    found = code.evidence.rules(
        [cell(0)], [(1 - k / 10, k / 10) for k in range(1, 10)], (2, 3, 41), raw=False
    )
    kept = {(rule.name, rule.evaluations): rule.kept[0] for rule in found}
    assert kept["λ = μ", 2] == pytest.approx(1)
    assert kept["λ*", 2] == pytest.approx(1)
    assert kept["surrogate", 3] == pytest.approx(1)
    assert kept["validation", 41] == pytest.approx(1)
    assert kept["validation", 2] == pytest.approx(0)
    assert 0 < kept["validation", 3] < 1


def test_connectivity_sees_a_soup_below_the_chord() -> None:
    """PASS on concave rewards; one soup below the chord by a tenth of the range is the worst gap."""
    one = cell(0)
    assert code.evidence.connected(one).verdict == "PASS"
    low = replace(one.sets["soups"][20], select=(0.4, 0.75))
    other = replace(one, sets={"soups": (*one.sets["soups"][:20], low, *one.sets["soups"][21:])})
    assert code.evidence.connected(other).verdict == "FAIL"
    assert code.evidence.worst_gap(code.evidence.connected(other)) == pytest.approx(-0.1)


def test_small_tables_come_back(tmp_path: Path) -> None:
    """read_cells(write_cells(cells)) = cells, to six digits, errors and guard metrics included."""
    one = cell(3, 0.1, noise=0.01)
    rich = replace(
        one.sets["soups"][0], select_errors=(0.125, 0.25), report_errors=(0.5, None), guards={"kl": 2.5}
    )
    cells = [replace(one, step=25, sets={**one.sets, "rich": (rich,)}), cell(4)]
    code.cells.write_cells(cells, tmp_path)
    for was, back in zip(cells, code.cells.read_cells(tmp_path), strict=True):
        assert replace(back, sets={}) == replace(was, sets={})
        for name, points in was.sets.items():
            for before, after in zip(points, back.sets[name], strict=True):
                assert (after.label, after.mix, after.guards) == (before.label, before.mix, before.guards)
                assert after.select_errors == before.select_errors
                assert (*after.select, *after.report) == pytest.approx(
                    (*before.select, *before.report), rel=1e-5
                )


def test_a_done_cell_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run goes on where it was, also after a cell that failed."""
    made: list[str] = []

    def measure(folder: Path) -> None:
        made.append(folder.name)
        if made == ["a", "b"]:
            raise ValueError("lost")
        code.cells.write_done(folder, {})

    todo = dict.fromkeys("ab", measure)
    with pytest.raises(ValueError, match="lost"):
        code.running.run_cells(todo, tmp_path)
    code.running.run_cells(todo, tmp_path)
    assert made == ["a", "b", "b"]
    assert "1 of 2 cells are there already" in capsys.readouterr().out


# --- what is trained and mixed


@given(st.lists(st.integers(0, 12), min_size=2, max_size=5).filter(any))
def test_bone_soup_undoes_its_backbones(parts: list[int]) -> None:
    """Σᵢ λᵢ·backboneᵢ = μ exactly, Σλ = 1."""
    mu = tuple(Fraction(part, sum(parts)) for part in parts)
    mix = code.plan.bone(mu)
    rows = [code.plan.backbone(len(mu), k) for k in range(1, len(mu) + 1)]
    assert (
        tuple(sum(share * row[k] for share, row in zip(mix, rows, strict=True)) for k in range(len(mu))) == mu
    )
    assert sum(mix) == 1


@pytest.mark.parametrize("rewards", [2, 3, 5])
def test_every_share_is_of_a_training(rewards: int) -> None:
    """Sets mix trainings of the plan alone; plain ones with Σλ = 1, and each expert is alone among the soups."""
    spec = code.plan.Spec("any", 0, rewards)
    names = {one.name for one in code.plan.trainings(spec)} | {"i1", "i2"}
    for name, group in code.plan.sets(spec).items():
        for soup in group.soups:
            assert set(soup.shares) <= names
            total = sum(soup.shares.values())
            assert total == {"base-alone": 0, "scaled-1.5": Fraction(3, 2), "scaled-2.0": 2}.get(name, 1)
    mixes = [soup.own for soup in code.plan.sets(spec)["soups"].soups]
    assert len(set(mixes)) == len(mixes)
    assert set(code.plan.lattice(rewards, 2)) <= set(mixes)


def test_the_waypoint_is_on_its_path() -> None:
    """From one expert through MORL for μ = ½ to the other, no jump longer than a tenth."""
    soups = code.plan.sets(code.plan.Spec("any", 0))["waypoint"].soups
    assert [soups[i].shares for i in (0, 10, 20)] == [{"e1": 1}, {"m5": 1}, {"e2": 1}]
    for one, other in itertools.pairwise(soups):
        moved = {
            name: one.shares.get(name, 0) - other.shares.get(name, 0) for name in (*one.shares, *other.shares)
        }
        assert sum(map(abs, moved.values())) == Fraction(1, 5)


@pytest.mark.parametrize("rewards", [2, 3, 5])
def test_pay_is_the_mean_of_the_rewards(rewards: int) -> None:
    """Over digits all equally frequent, the mean pay of right answers is Σ μₖ/N, whatever the groups' sizes."""
    mu = tuple(random.Random(rewards).random() for _ in range(rewards))
    assert float(code.world._pay(mu).mean()) == pytest.approx(sum(mu) / rewards)


def test_lanes_answer_as_their_policies() -> None:
    """The batched network is, lane by lane, the policy itself."""
    import torch

    from rsoup.demo.train import policy_of

    generator = torch.Generator().manual_seed(0)
    states = [code.world.new_policy(generator).state_dict() for _ in range(3)]
    pixels = torch.rand(3, 5, 64, generator=generator)
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    answers = code.world._logits(stacked, pixels)
    for lane, state in enumerate(states):
        assert torch.allclose(answers[lane], policy_of(state)(pixels[lane]), atol=1e-5)


# --- a tiny cell, from its training to its page


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of one cell: four steps from a base of twenty."""
    runs = tmp_path_factory.mktemp("digits")
    spec = code.plan.Spec("n2", 0, steps=(4,), base_steps=20, full=False)
    (runs / spec.name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT / "digits")
        code.run.measure(runs / spec.name, spec)
    return runs


def test_a_cell_is_measured_by_the_command(small: Path) -> None:
    """Every set, both splits; λ = (1, 0) is MORL for μ = 0, and the middle is its soup's reward."""
    import torch

    import rsoup

    cells = code.cells.read_runs(small)
    assert [one.step for one in cells] == [4]
    for one in cells:
        assert {name: len(found) for name, found in one.sets.items()} == {
            "soups": 21, "morl": 11, "base-alone": 1, "bone": 21,
        }  # fmt: skip
        assert one.experts[0].select == one.sets["morl"][0].select
        assert one.experts[1].report == one.sets["morl"][-1].report
        folder = small / one.name
        with rsoup.open_soup({k: folder / k / f"checkpoint-{one.step}" for k in ("e1", "e2")}) as soup:
            soup.set_mix([HALF, HALF])
            state = {name: tensor.clone() for name, tensor in soup.state_dict().items()}
        images = code.world.world(0).report
        middle = next(point for point in one.sets["soups"] if point.mix == (HALF, HALF))
        told = code.world.rewards(code.world.outputs(state, images), images, 2)
        assert middle.report == pytest.approx(tuple(told.values()), rel=1e-6)
        assert isinstance(state, dict)
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_the_page_says_what_the_small_tables_say(small: Path, tmp_path: Path) -> None:
    """Page, verdicts and index from the committed tables alone; one seed decides nothing."""
    code.cells.write_cells(code.cells.read_runs(small), tmp_path / "digits")
    page = code.summary.write(tmp_path, figures=False).read_text(encoding="utf-8")
    one = code.cells.read_cells(tmp_path / "digits")[0]
    assert f"{code.evidence.promised(one, one.sets['soups']):.3f}" in page
    assert "one seed" in page
    assert "nan" not in page
    told = json.loads((tmp_path / "digits" / "verdicts.json").read_text(encoding="utf-8"))
    assert [line["verdict"] for line in told["lines"]] == ["–"]
    assert "[Digits](digits.md)" in code.index.write(tmp_path).read_text(encoding="utf-8")


def test_a_figure_is_drawn_by_the_command(small: Path, tmp_path: Path) -> None:
    """rsoup front draws a cell's soups with its MORL, and the reward's name on the axis."""
    one = code.cells.read_runs(small)[-1]
    made = code.pictures.draw(
        [one], {"front": tmp_path / "front.svg"}, ingredients=("low", "high"), axes=("digits 0-4", "digits 5-9"),
        compare={"MORL": "morl"},
    )  # fmt: skip
    assert made == [tmp_path / "front.svg"]
    text = made[0].read_text(encoding="utf-8")
    assert "digits 0-4" in text
    assert "MORL" in text
