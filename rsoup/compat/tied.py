"""Whether a model's output head is its embeddings, stored once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from rsoup.compat.files import config_of
from rsoup.storage.protocols import Source

HEAD: Final = "lm_head.weight"
EMBEDDING: Final = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight$"
)


def is_tied(source: Source) -> bool:
    """Whether a model's head is its embeddings: its configuration says so, or it has a head and stores none."""
    config: Mapping[str, object] = config_of(source) or {}
    names = config.get("architectures")
    heads = ("CausalLM", "LMHeadModel", "ConditionalGeneration")
    headed = isinstance(names, list) and any(str(name).endswith(heads) for name in names)
    if isinstance(names, list) and names and not headed:
        return False  # a classifier's configuration may say tied, and there is no head to tie
    text = config.get("text_config")
    for part in (config, text if isinstance(text, dict) else {}):
        if isinstance(tied := part.get("tie_word_embeddings"), bool):
            return tied
    return headed
