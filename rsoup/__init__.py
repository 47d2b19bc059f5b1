"""rsoup mixes checkpoints that share a base: θ(λ) = Σ λᵢθᵢ, exact, streamed, at the speed of the disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsoup.errors import MismatchError as MismatchError
    from rsoup.errors import RsoupError as RsoupError
    from rsoup.family.checking import CheckResult as CheckResult
    from rsoup.family.checking import check as check
    from rsoup.library import load_recipe as load_recipe
    from rsoup.library import make_recipe as make_recipe
    from rsoup.live import Soup as Soup
    from rsoup.live import open_soup as open_soup
    from rsoup.lora.extracting import ExtractResult as ExtractResult
    from rsoup.lora.extracting import extract as extract
    from rsoup.lora.resizing import resize as resize
    from rsoup.merging import MergeResult as MergeResult
    from rsoup.merging import merge as merge
    from rsoup.merging import merge_many as merge_many
    from rsoup.progress import Progress as Progress
    from rsoup.proof.differing import DiffResult as DiffResult
    from rsoup.proof.differing import diff as diff
    from rsoup.proof.recooking import recook as recook
    from rsoup.proof.verdict import VerifyResult as VerifyResult
    from rsoup.proof.verifying import verify as verify
    from rsoup.recipe import Recipe as Recipe
    from rsoup.storage.checkpoint import open_checkpoint as open_checkpoint

__version__ = "0.1.0"

_HOMES = {
    "CheckResult": "rsoup.family.checking",
    "DiffResult": "rsoup.proof.differing",
    "ExtractResult": "rsoup.lora.extracting",
    "MergeResult": "rsoup.merging",
    "MismatchError": "rsoup.errors",
    "Progress": "rsoup.progress",
    "Recipe": "rsoup.recipe",
    "RsoupError": "rsoup.errors",
    "Soup": "rsoup.live",
    "VerifyResult": "rsoup.proof.verdict",
    "check": "rsoup.family.checking",
    "diff": "rsoup.proof.differing",
    "extract": "rsoup.lora.extracting",
    "load_recipe": "rsoup.library",
    "make_recipe": "rsoup.library",
    "merge": "rsoup.merging",
    "merge_many": "rsoup.merging",
    "open_checkpoint": "rsoup.storage.checkpoint",
    "open_soup": "rsoup.live",
    "recook": "rsoup.proof.recooking",
    "resize": "rsoup.lora.resizing",
    "verify": "rsoup.proof.verifying",
}

__all__ = sorted(["__version__", *_HOMES])  # noqa: PLE0605 - a sorted list is a list


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for, so that `import rsoup` costs nothing."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module 'rsoup' has no attribute '{name}'"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
