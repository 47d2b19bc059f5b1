"""Measures of known geometry, and the verdict that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from checkpoints import Tensors, from_torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.compat.headers import Mismatch
from rsoup.family.measures import Measures, Part, group_of, measure
from rsoup.family.survey import comparable, survey
from rsoup.family.verdict import MIXABLE, NOT_ONE, WITH_CARE, Limits, judge


def measured(models: Sequence[Tensors], base: Tensors | None = None) -> Measures:
    """The measures of these models, from memory."""
    sources = [from_torch(f"m{i}", tensors) for i, tensors in enumerate(models)]
    ordered = [*sources, from_torch("base", base)] if base is not None else [*sources[1:], sources[0]]
    names, _ = comparable([source.header for source in ordered])
    records = survey(ordered, names, moved=base is not None)
    return measure(records, [source.name for source in sources], base=base is not None)


def flat(tensors: Tensors) -> torch.Tensor:
    """All floats of a model as one vector of float64."""
    return torch.cat([t.double().flatten() for t in tensors.values() if t.is_floating_point()])


def family(
    count: int, step: float, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[list[Tensors], Tensors]:
    """(fine-tunes, base): random directions, each `step` of the base's norm long."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embed.weight": (50, 40),
        "layers.0.w": (40, 40),
        "layers.1.w": (40, 40),
        "norm.weight": (40,),
        "lm_head.weight": (50, 40),
    }
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    models = [
        {
            name: (value + step * torch.randn(value.shape, generator=generator)).to(dtype)
            for name, value in base.items()
        }
        for _ in range(count)
    ]
    return models, {name: value.to(dtype) for name, value in base.items()}


@settings(max_examples=25)
@given(st.integers(1, 4), st.floats(1e-3, 2.0), st.integers(0, 10**6))
def test_measures_are_what_they_say(count: int, step: float, seed: int) -> None:
    """Distances, cosines, pairs, norms and the norm ratio equal those of the flat vectors in float64."""
    models, base = family(count, step, seed)
    theta, base_flat = [flat(model) for model in models], flat(base)
    delta = [vector - base_flat for vector in theta]

    found = measured(models, base)

    assert found.total is not None
    near = {"rel_tol": 1e-9, "abs_tol": 1e-9}
    for i in range(count):
        assert math.isclose(found.norm[i], theta[i].norm(), **near)  # type: ignore[arg-type]
        assert math.isclose(found.total.relative[i], delta[i].norm() / base_flat.norm(), **near)  # type: ignore[arg-type]
        assert math.isclose(found.total.absolute[i], delta[i].norm(), **near)  # type: ignore[arg-type]
        assert math.isclose(found.total.norm_ratio[i], theta[i].norm() / base_flat.norm(), **near)  # type: ignore[arg-type]
        for j in range(count):
            apart = (theta[i] - theta[j]).norm()
            assert math.isclose(found.pair_absolute[i][j], apart, **near)  # type: ignore[arg-type]
            assert math.isclose(
                found.pair_relative[i][j], apart / (theta[i].norm() * theta[j].norm()).sqrt(), **near
            )  # type: ignore[arg-type]
            cosine = torch.dot(delta[i], delta[j]) / (delta[i].norm() * delta[j].norm())
            assert math.isclose(found.cosine[i][j], cosine, **near)  # type: ignore[arg-type]
    whole = torch.stack(delta).sum(0).norm() / sum(d.norm() for d in delta)
    assert math.isclose(found.norm_ratio, whole, **near)  # type: ignore[arg-type]


def test_pairs_need_no_base() -> None:
    """‖θᵢ − θⱼ‖ and ‖θᵢ‖ are the same with a base and without one; what needs a base is not there."""
    models, base = family(3, 0.1)

    with_base, alone = measured(models, base), measured(models)

    for i in range(3):
        assert math.isclose(alone.norm[i], with_base.norm[i], rel_tol=1e-12)  # type: ignore[arg-type]
        assert alone.pair_relative[i] == pytest.approx(with_base.pair_relative[i], abs=1e-12)
    assert alone.total is None
    assert (alone.layers, alone.cosine, alone.unique, alone.conflicts) == ((), (), (), None)


def test_equal_checkpoints_are_no_distance_apart() -> None:
    """Twins are exactly 0 apart, however far they are from the base."""
    (one,), base = family(1, 0.3)

    for found in (measured([one, one], base), measured([one, one])):
        assert found.pair_absolute == ((0.0, 0.0), (0.0, 0.0))


def test_shares_of_what_changed() -> None:
    """changed, unique, moved and shared are shares of all elements; conflicts of those that several moved."""
    base = {"w": torch.ones(8), "n": torch.zeros(4, dtype=torch.int64)}
    up, down = base["w"].clone(), base["w"].clone()
    up[:4] += 1
    down[2:5] -= 1
    down[3] += 2

    found = measured([{"w": up, "n": base["n"]}, {"w": down, "n": torch.ones(4, dtype=torch.int64)}], base)

    assert found.total is not None
    assert found.elements == 8
    assert found.total.changed == (4 / 8, 3 / 8)
    assert found.unique == (2 / 8, 1 / 8)
    assert (found.moved, found.shared, found.conflicts) == (5 / 8, 2 / 8, 1 / 2)
    assert found.copied == ("n",)


def test_groups_have_their_places() -> None:
    """Tensors are grouped by layer, and outside of layers by what they are."""
    for tensor, group in {
        "model.layers.12.mlp.up_proj.weight": "layer 12", "model.embed_tokens.weight": "embeddings", "transformer.wte.weight": "embeddings",
        "lm_head.weight": "head", "embed_out.weight": "head", "score.weight": "head", "model.norm.weight": "norms",
        "transformer.ln_f.bias": "norms", "something.else": "other",
    }.items():  # fmt: skip
        assert group_of(tensor) == group
    models, base = family(2, 0.1)

    assert [part.name for part in measured(models, base).layers] == [
        "embeddings",
        "layer 0",
        "layer 1",
        "norms",
        "head",
    ]


def total(relative: Sequence[float | None], norm_ratio: float = 1.1) -> Measures:
    """Measures with these relative distances and nothing else of note."""
    size = len(relative)
    part = Part("all", 1000, tuple(relative), tuple(relative), (1.0,) * size, (norm_ratio,) * size)
    return Measures(tuple("abcd"[:size]), 1000, (1.0,) * size, (), (), part)


@pytest.mark.parametrize(
    ("relative", "word", "reasons"),
    [
        ((0.0, 0.1), MIXABLE, []),
        ((0.2, 0.2), MIXABLE, []),
        ((0.1, 0.21), WITH_CARE, [("distance", "b")]),
        ((0.7, 0.1), WITH_CARE, [("distance", "a")]),
        ((0.3, 0.71), NOT_ONE, [("distance", "b"), ("distance", "a")]),
        ((1.41, math.inf), NOT_ONE, [("distance", "a"), ("distance", "b")]),
        ((None,), NOT_ONE, [("distance", "a")]),
    ],
)
def test_the_verdict_table(
    relative: Sequence[float | None], word: str, reasons: list[tuple[str, str]]
) -> None:
    """Up to `care` mixable, up to `max_distance` with care, beyond or unknown not one family; the gravest first."""
    verdict = judge([], total(relative), Limits())

    assert verdict.word == word
    assert [(reason.measure, reason.checkpoint) for reason in verdict.reasons] == reasons


def test_limits_move_the_verdict() -> None:
    """The same distance is judged by the limits that are given."""
    for limits, word in (
        (Limits(0.3, 0.7), MIXABLE),
        (Limits(0.1, 0.2), NOT_ONE),
        (Limits(0.1, 0.9), WITH_CARE),
    ):
        assert judge([], total([0.25]), limits).word == word


def test_a_mismatch_is_no_family() -> None:
    """Whatever stands against a soup makes them no family, measured or not."""
    mismatch = Mismatch("missing", "1 tensor", ("w",))

    for measures in (None, total([0.01])):
        verdict = judge([mismatch], measures, Limits())
        assert verdict.word == NOT_ONE
        assert verdict.reasons[0].what == "missing: 1 tensor"
    assert judge([], None, Limits()).word == MIXABLE


def test_a_permuted_network_is_told() -> None:
    """The base's own units in another order: √2 away at the same norm, and said to look permuted."""
    (_,), base = family(1, 0.1)
    generator = torch.Generator().manual_seed(3)
    permuted = {name: value[torch.randperm(len(value), generator=generator)] for name, value in base.items()}

    verdict = judge([], measured([permuted], base), Limits())

    assert verdict.word == NOT_ONE
    assert verdict.reasons[0].value == pytest.approx(math.sqrt(2), rel=0.05)
    assert "permuted" in verdict.reasons[0].what


def test_strangers_are_told_with_a_base_and_without() -> None:
    """Independent networks are no family; nor is one of them beside a fine-tune of the base."""
    (tuned,), base = family(1, 0.05, 0)
    _, stranger = family(1, 0.05, 1)
    stranger = {name: 1.3 * value for name, value in stranger.items()}

    for found in (measured([tuned, stranger], base), measured([tuned, stranger])):
        verdict = judge([], found, Limits())
        assert verdict.word == NOT_ONE
        assert {reason.checkpoint for reason in verdict.reasons} == {"m1"}


def test_without_a_base_limits_are_those_of_right_angles() -> None:
    """Two fine-tunes d away from their base at a right angle are √2·d apart, and judged as with the base."""
    for step, word in ((0.1, MIXABLE), (0.4, WITH_CARE)):
        models, base = family(2, step)
        assert judge([], measured(models, base), Limits()).word == word
        assert judge([], measured(models), Limits()).word == word


def test_one_permuted_layer_is_found() -> None:
    """A layer that moved beyond the limit while the whole did not is a reason for care, and named."""
    (model,), base = family(1, 0.01)
    model["layers.1.w"] = base["layers.1.w"].flip(0)

    verdict = judge([], measured([model], base), Limits(0.69, 0.7))

    assert verdict.word == WITH_CARE
    assert [reason.measure for reason in verdict.reasons] == ["layer"]
    assert "layer 1 of 'm0'" in verdict.reasons[0].what


def test_opposed_updates_need_care() -> None:
    """Updates that undo each other are no danger to the loss, and no use as a soup: with care."""
    (one,), base = family(1, 0.05)
    other = {name: 2 * base[name] - value for name, value in one.items()}

    verdict = judge([], measured([one, other], base), Limits())

    assert verdict.word == WITH_CARE
    assert [(reason.measure, reason.checkpoint) for reason in verdict.reasons] == [("cosine", "m1")]


@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_what_is_not_finite_is_a_reason(base: bool, broken: int) -> None:
    """NaN in any checkpoint makes every soup NaN: no family, and whose it is and how many are said."""
    models, start = family(3, 0.05)
    models[broken]["layers.0.w"][0, :5] = math.nan

    verdict = judge([], measured(models, start if base else None), Limits())

    assert verdict.word == NOT_ONE
    (reason,) = verdict.reasons
    assert (reason.measure, reason.checkpoint, reason.value) == ("nonfinite", f"m{broken}", 5.0)


def test_masks_are_no_reason() -> None:
    """Elements that are −∞ everywhere alike are carried over by a soup, and stand against nothing."""
    models, base = family(2, 0.05)
    for model in (*models, base):
        model["layers.0.w"][0] = -math.inf

    found = measured(models, base)

    assert judge([], found, Limits()).word == MIXABLE
    assert found.carried == 40


def test_a_base_of_zeros_is_infinitely_far() -> None:
    """From a base of zeros everything is infinitely far, and nothing is divided by zero."""
    found = measured([{"w": torch.ones(4)}, {"w": torch.zeros(4)}], {"w": torch.zeros(4)})

    assert found.total is not None
    assert found.total.relative == (math.inf, 0.0)
    assert judge([], found, Limits()).word == NOT_ONE
