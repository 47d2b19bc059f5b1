"""Which rows of an embedding an adapter trained: its configuration names them, its file holds them."""

from __future__ import annotations

from rsoup.errors import RefusedFileError, show
from rsoup.lora.config import TOKENS, AdapterConfig
from rsoup.storage.protocols import Source


def indices(name: str, key: str, source: Source, config: AdapterConfig) -> tuple[int, ...]:
    """Which rows of an embedding `trainable_token_indices` names; as many as the file holds."""
    declared = config.raw.get("token_indices" if config.peft_type == TOKENS else "trainable_token_indices")
    module = name.removesuffix(".weight")
    found: object = declared
    if isinstance(declared, dict):
        found = next((v for k, v in declared.items() if module == k or module.endswith(f".{k}")), None)
    count = source.header[key].shape[0] if source.header[key].shape else 0
    fits = isinstance(found, list) and all(
        isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in found
    )
    if not fits or not isinstance(found, list) or len(found) != count or len(set(found)) != count:
        raise RefusedFileError(
            "E0824",
            f"'{show(key)}' has {count} rows, and its configuration does not name as many tokens",
            where=show(source.name),
            hint="the tensors and adapter_config.json are not of one adapter: fetch or save it again",
        )
    return tuple(found)
