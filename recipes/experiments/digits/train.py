"""Trains everything of one cell, and averages its experts' outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import plan
import world as worlds
from plan import Spec

import rsoup

if TYPE_CHECKING:
    from world import State


def train(folder: Path, spec: Spec) -> None:
    """Write base/, NAME/checkpoint-STEPS/ of every training, ensemble.json, and outputs/ of experts and middle soup."""
    import torch

    torch.set_num_threads(1)
    base = worlds.base(spec.seed, spec.base_steps)
    about = {"model_type": "digits-mlp", "seed": spec.seed, "rewards": spec.rewards}
    _save(base, folder / "base", about)
    todo = plan.trainings(spec)
    lanes = [worlds.Lane(base, tuple(map(float, one.preference))) for one in todo]
    halves = {steps // 2: steps for steps in spec.steps}
    found = worlds.fine_tuned(lanes, spec.seed, [*spec.steps, *halves], rate=spec.rate)
    for steps in spec.steps:
        for one, state in zip(todo, found[steps], strict=True):
            _save(state, folder / one.name / f"checkpoint-{steps}", about)
    if spec.rewards == 2 and spec.full:
        middle = [one.name for one in todo].index(f"m{plan.MORL // 2}")
        _begin_with_morl(folder, spec, {halves[half]: found[half][middle] for half in halves}, about)
    if spec.full:
        _ensembles(folder, spec, {steps: found[steps][: spec.rewards] for steps in spec.steps})


def _begin_with_morl(folder: Path, spec: Spec, starts: dict[int, State], about: dict[str, object]) -> None:
    """MORL for μ = ½ for half the steps, then an expert per reward for ¾ of them: ½ + 2 · ¾ = 2 trainings in all."""
    corners = plan.lattice(2, 2)
    lanes = [
        worlds.Lane(starts[steps], tuple(map(float, corner))) for steps in spec.steps for corner in corners
    ]
    last = {steps: steps * 3 // 4 for steps in spec.steps}
    found = worlds.fine_tuned(lanes, spec.seed, list(last.values()), draw=1, rate=spec.rate)
    for number, steps in enumerate(spec.steps):
        for k in range(2):
            _save(found[last[steps]][2 * number + k], folder / f"i{k + 1}" / f"checkpoint-{steps}", about)


def _ensembles(folder: Path, spec: Spec, experts: dict[int, Sequence[State]]) -> None:
    """The rewards of Σ λᵢ·logitsᵢ, and the outputs that `rsoup ensemble` compares at λ = 1/N."""
    import numpy as np
    import torch

    images = worlds.world(spec.seed)
    rows = []
    (folder / "outputs").mkdir(exist_ok=True)
    for steps, states in experts.items():
        logits = {
            split: torch.stack([worlds.outputs(state, getattr(images, split)) for state in states])
            for split in ("select", "report")
        }
        for mix in plan.grid(spec.rewards):
            weights = torch.tensor([float(share) for share in mix], dtype=torch.float64)
            mean = {split: (weights[:, None, None] * found).sum(dim=0) for split, found in logits.items()}
            told = worlds.scores(mean, images, spec.rewards)
            rows.append({"step": steps, "lambda": ",".join(map(str, mix)), **told})
        for k, found in enumerate(logits["report"], 1):
            np.save(folder / "outputs" / f"e{k}-{steps}.npy", found.numpy())
        paths = {f"e{k}": folder / f"e{k}" / f"checkpoint-{steps}" for k in range(1, spec.rewards + 1)}
        with rsoup.open_soup(paths) as soup:
            middle = worlds.outputs(soup.state_dict(), images.report)
        np.save(folder / "outputs" / f"soup-{steps}.npy", middle.numpy())
    np.save(folder / "outputs" / "labels.npy", images.report.labels.numpy())
    (folder / "ensemble.json").write_text(json.dumps(rows), encoding="utf-8")


def _save(state: State, folder: Path, about: dict[str, object]) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(state), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(about), encoding="utf-8")
