"""What `rsoup sweep --function score:rewards` calls: the rewards of a soup on the images of its base's seed."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

import world as worlds

if TYPE_CHECKING:
    from rsoup.live import Soup


@cache
def _opened(folder: str) -> tuple[worlds.World, int]:
    import torch

    torch.set_num_threads(1)
    about = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    return worlds.world(int(about["seed"])), int(about["rewards"])


def rewards(soup: Soup) -> dict[str, float]:
    """{"r1": …, "r1_report": …, …}: on the images that λ is chosen by, and on others, to report."""
    images, count = _opened(str(soup.recipe.base))
    state = soup.state_dict()
    logits = {split: worlds.outputs(state, getattr(images, split)) for split in ("select", "report")}
    return worlds.scores(logits, images, count)
