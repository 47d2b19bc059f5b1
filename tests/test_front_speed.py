"""Large tables: what is left out changes nothing, and thousands of points × 8 rewards take a moment."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.cli import front as command
from rsoup.cli.front_outputs import Outputs
from rsoup.cli.reading import Reading
from rsoup.console import Console
from rsoup.front.batches import expected_rewards
from rsoup.front.contenders import contenders
from rsoup.front.expected import expected_reward, utility_loss


def cloud(kind: str, count: int, rewards: int, seed: int) -> np.ndarray:
    """Random points; on a sphere every one of them is the best one for some preference."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, rewards))
    if kind == "sphere":
        points = np.abs(points) / np.linalg.norm(points, axis=1, keepdims=True)
    return points if kind != "steps" else np.round(points)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["cloud", "sphere", "steps"]), st.integers(2, 400), st.integers(2, 8), st.integers(0, 999)
)
def test_who_is_left_out_is_never_the_best(kind: str, count: int, rewards: int, seed: int) -> None:
    """max μ·p over the contenders = max μ·p over all, for preferences that nobody tried before."""
    points = cloud(kind, count, rewards, seed)
    rng = np.random.default_rng(seed + 1)
    tried, others = (rng.dirichlet(np.full(rewards, a), n) for a, n in ((1.0, 200), (0.4, 3000)))

    kept = contenders(points, tried)

    assert {tuple(row) for row in kept} <= {tuple(row) for row in points}
    difference = (others @ points.T).max(axis=1) - (others @ kept.T).max(axis=1)
    assert np.abs(difference).max() <= 1e-12


def test_most_of_a_cloud_is_left_out() -> None:
    """Of 1200 normal points in 8 dimensions a third is enough, and the figures are those of all of them."""
    points = cloud("cloud", 1200, 8, 0)
    tried = np.random.default_rng(1).dirichlet(np.ones(8), 1000)

    assert len(contenders(points, tried)) < 400
    best = np.concatenate([(block @ points.T).max(axis=1) for block in np.array_split(tried, 4)])
    assert expected_reward(points.tolist()).value == pytest.approx(best.mean(), abs=0.1)
    assert utility_loss(points[:900].tolist(), points.tolist()).value >= 0
    assert utility_loss(points.tolist(), points[:900].tolist()).value <= 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 999), st.sampled_from([1.0, 0.1, 1e-3]))
def test_many_envelopes_at_once_are_the_exact_ones(count: int, seed: int, step: float) -> None:
    """Ties, duplicates and points on one line included: each set has its exact expected reward."""
    rng = np.random.default_rng(seed)
    sets = rng.integers(-4, 5, size=(6, count, 2)) * step
    line = rng.integers(0, 9, size=(2, count))
    sets[4:] = np.stack([line, 8 - line], axis=2) * step

    assert expected_rewards(sets).tolist() == pytest.approx(
        [expected_reward(points).value for points in sets.tolist()], rel=1e-12, abs=1e-13
    )


def unit() -> float:
    """Seconds of this thread for a million squares: how busy the machine is."""
    begun = time.thread_time()
    sum(i * i for i in range(1_000_000))
    return time.thread_time() - begun


@pytest.mark.parametrize(("count", "rewards", "errors"), [(3000, 8, True), (500, 8, True), (2000, 2, True)])
def test_a_large_table_takes_a_moment(tmp_path: Path, count: int, rewards: int, errors: bool) -> None:
    """From the file to the document in under a second of a quiet core: in under three of a busy one."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(count, rewards))
    head = [f"r{k}" for k in range(rewards)]
    if errors:
        values = np.hstack([values, np.full(values.shape, 0.05)])
        head += [f"{name}_stderr" for name in head]
    path = tmp_path / "points.csv"
    np.savetxt(path, values, fmt="%.6f", delimiter=",", header=",".join(head), comments="")
    out = io.StringIO()

    before, begun = unit(), time.thread_time()  # without what other threads wait
    console = Console(as_json=True, out=out, err=io.StringIO())
    command.run(Reading(str(path)), command.Questions(), Outputs(), console=console)
    seconds = time.thread_time() - begun

    assert len(json.loads(out.getvalue())["points"]) == count
    assert seconds < 3 * max(1.0, before / 0.05)
