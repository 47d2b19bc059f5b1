"""The evaluator: episodes of a soup of policies, those to choose λ by and those to report, with standard errors.

rsoup sweep fast=fast.zip frugal=frugal.zip --base base.zip --grid 21 --function score:rewards …     a live soup
rsoup sweep … --eval 'python score.py {model} eyes.pkl' …                                            an archive

Both answer {"fast": {"value", "stderr"}, "frugal": …, "fast_report": …, "frugal_report": …}; eyes.pkl, which lies beside
the base, holds the statistics of the observations that all of them were trained with.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import world as worlds

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    from rsoup.live import Soup

SPLITS = {"": 10_000, "_report": 20_000}
"""The first seed of the episodes to choose by, and of those to report."""
EPISODES = int(os.environ.get("LOCOMOTION_EPISODES", "16"))
HORIZON = int(os.environ.get("LOCOMOTION_HORIZON", str(worlds.HORIZON)))


def rewards(soup: Soup) -> dict[str, tuple[float, float]]:
    """Means and standard errors of a soup's episodes, for `rsoup sweep --function score:rewards`."""
    folder = Path(soup.recipe.base or soup.recipe.ingredients[0].checkpoints[0]).parent
    model, eyes = _agent(folder)
    soup.load_into(model.policy)
    return measured(model, eyes)


def measured(model: PPO, eyes: VecNormalize) -> dict[str, tuple[float, float]]:
    """The same of any policy; all episodes run side by side."""
    seeds = [start + i for start in SPLITS.values() for i in range(EPISODES)]
    found = worlds.run(model, eyes, seeds, HORIZON)
    parts = {end: found.part(k * EPISODES, EPISODES) for k, end in enumerate(SPLITS)}
    return {name + end: score for end, part in parts.items() for name, score in part.scores().items()}


@cache
def _agent(folder: Path) -> tuple[PPO, VecNormalize]:
    """The base's policy, whose weights the soups replace, and how it sees."""
    return worlds.load(folder / "base.zip"), worlds.eyes(folder / "eyes.pkl")


def main() -> None:
    """Score the archive argv[1], seen through argv[2]."""
    found = measured(worlds.load(Path(sys.argv[1])), worlds.eyes(Path(sys.argv[2])))
    answer: dict[str, Any] = {name: {"value": v, "stderr": e} for name, (v, e) in found.items()}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
