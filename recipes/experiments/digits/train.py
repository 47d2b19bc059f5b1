"""Trains everything of one cell: base, an expert per reward (twice), and a policy per mixture of the rewards.

python train.py FOLDER '[seed, steps, rewards, weak]'
"""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import torch
import world as worlds
from safetensors.torch import save_file

WEAK_STEPS, STRONG_STEPS = 60, 300
WEAK_RATE = 3e-3
MORL = 11


def preferences(count: int) -> list[tuple[float, ...]]:
    """The mixtures that are trained for: eleven between two rewards; vertices, middles of pairs and the centre beyond."""
    if count == 2:
        return [(1 - i / (MORL - 1), i / (MORL - 1)) for i in range(MORL)]
    corners = [tuple(float(i == k) for i in range(count)) for k in range(count)]
    middles = [tuple(0.5 * (i in pair) for i in range(count)) for pair in combinations(range(count), 2)]
    return [*corners, *middles, (1 / count,) * count]


def main() -> None:
    """Write base, expert-K, expert-K-again and morl-NN into the folder, each as a folder with its config."""
    folder = Path(sys.argv[1])
    seed, steps, count, weak = json.loads(sys.argv[2])
    torch.set_num_threads(1)
    base = worlds.base(seed, WEAK_STEPS if weak else STRONG_STEPS)
    rate = WEAK_RATE if weak else worlds.RATE
    about = {"seed": seed, "steps": steps, "rewards": count, "model_type": "digits-mlp"}
    _save(base, folder / "base", about)
    corners = [tuple(float(i == k) for i in range(count)) for k in range(count)]
    experts = [
        worlds.fine_tuned(base, seed, corner, steps, draw=k, rate=rate) for k, corner in enumerate(corners)
    ]
    for k, (corner, expert) in enumerate(zip(corners, experts, strict=True), 1):
        _save(expert, folder / f"expert-{k}", about)
        again = worlds.fine_tuned(base, seed, corner, steps, draw=100 + k, rate=rate)
        _save(again, folder / f"expert-{k}-again", about)
    for number, preference in enumerate(preferences(count)):
        if preference in corners:
            state = experts[corners.index(preference)]  # the same training: μ is one reward alone
        else:
            state = worlds.fine_tuned(base, seed, preference, steps, draw=200 + number, rate=rate)
        _save(state, folder / f"morl-{number:02d}", {**about, "preference": preference})


def _save(state: dict[str, torch.Tensor], folder: Path, about: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main()
