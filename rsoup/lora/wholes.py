"""Which whole tensors an adapter's configuration asks PEFT to store beside the factors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rsoup.lora.config import AdapterConfig

EMBEDDINGS: Final = (
    *("embed_in", "embed_out", "embed_tokens", "lm_head", "shared", "tok_embeddings"),
    *("word_embeddings", "wte"),
)
"""Modules that PEFT stores whole where the vocabulary grew, which no configuration says."""
_HEADS: Final[Mapping[str, tuple[str, ...]]] = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}


def unasked(tensors: Iterable[str], config: AdapterConfig) -> list[str]:
    """The tensors that nothing in the configuration explains: no module to save, no trained bias, no embedding.

    `modules_to_save` names a module by the end of its name, and whatever lies inside it with it.
    Source: PEFT 0.21, `_set_trainable`, `get_peft_model_state_dict`.
    """
    listed = config.raw.get("modules_to_save")
    saved = [*map(str, listed)] if isinstance(listed, list) else []
    saved += _HEADS.get(config.task_type or "", ())
    return [name for name in tensors if not _is_asked(name, saved, config)]


def _is_asked(name: str, saved: list[str], config: AdapterConfig) -> bool:
    parts = name.split(".")[:-1]
    owners = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return (
        (name.endswith(".bias") and config.bias != "none")
        or (bool(parts) and parts[-1] in EMBEDDINGS)
        or any(owner.endswith(target) for owner in owners for target in saved)
    )
