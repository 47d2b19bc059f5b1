"""What `rsoup sweep --function score:rewards` calls: the rewards of a soup on the images of its base's seed."""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

import world as worlds

if TYPE_CHECKING:
    from rsoup.live import Soup


@cache
def _world(seed: int) -> worlds.World:
    return worlds.world(seed)


def rewards(soup: Soup, split: str) -> dict[str, float]:
    """{"r1": …, "r2": …}, on the images of the split."""
    import torch

    torch.set_num_threads(1)
    folder = soup.recipe.base or soup.recipe.ingredients[0].checkpoints[0]
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        about = json.load(file)
    images = getattr(_world(int(about["seed"])), split)
    return worlds.rewards(soup.state_dict(), images, int(about["rewards"]))
