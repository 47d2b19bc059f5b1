"""The demo's evaluator: the two rewards of a soup on held-out digits."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from rsoup.demo import digits, train

if TYPE_CHECKING:
    from rsoup.demo.digits import Digits
    from rsoup.live import Soup

_held_out: dict[int, Digits] = {}


def rewards(soup: Soup) -> dict[str, float]:
    """{"low": …, "high": …}: the probability, 0..1, that a held-out digit 0–4 or 5–9 is answered right.

    The held-out digits are those the demo's training of this base did not see, as its config.json says.
    """
    return train.rewards(soup.state_dict(), held_out(_seed(soup)))


def held_out(seed: int) -> Digits:
    """The digits that a demo of this seed kept from training."""
    import torch

    if seed not in _held_out:
        generator = torch.Generator().manual_seed(seed)
        _held_out[seed] = digits.split(digits.load(), held_out=train.HELD_OUT, generator=generator)[1]
    return _held_out[seed]


def _seed(soup: Soup) -> int:
    folder = soup.recipe.base or soup.recipe.ingredients[0].checkpoints[0]
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return int(json.load(file)["seed"])
