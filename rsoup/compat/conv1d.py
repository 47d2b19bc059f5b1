"""Which layers store their weight inputs first: the Conv1D of GPT-2 and its relatives. Pure."""

from __future__ import annotations

from typing import Final

CONV1D: Final = ("c_attn", "c_fc", "c_proj", "q_attn")
"""The last names of such layers; other models have linear ones of these names."""

MODELS: Final = ("decision_transformer", "gpt2", "imagegpt", "openai-gpt")
"""The types of models whose layers of these names are all Conv1D, and whose others are not."""


def is_named_so(module: str) -> bool:
    """Whether a module has the name of a Conv1D."""
    return module.rpartition(".")[2] in CONV1D
