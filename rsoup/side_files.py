"""config.json must tell the truth about how the soup is stored: its dtype, the length of its vocabulary."""

from __future__ import annotations

import json
import re

from rsoup.compat.tied import HEAD, is_tied
from rsoup.storage.protocols import Source
from rsoup.storage.views import bottom
from rsoup.tensors import Header

_KEYS = ("dtype", "torch_dtype")
_EMBEDDINGS = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared)\.weight$"
)
_WRITTEN = ("float64", "float32", "bfloat16", "float16")


def main_dtype(header: Header) -> str | None:
    """The torch name of the float dtype that takes most of the soup's bytes; None without floats."""
    sizes: dict[str, int] = {}
    for spec in header.values():
        if spec.dtype.torch_name in _WRITTEN:
            sizes[spec.dtype.torch_name] = sizes.get(spec.dtype.torch_name, 0) + spec.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else None


def soup_config(name: str, data: bytes, header: Header, donor: Source) -> bytes:
    """The config.json `name` of a soup with this header, from `data`, that of `donor`: it tells the truth of the soup.

    Its dtype, its vocabulary where that was cut, filled up or resized, its head where that is stored by itself and
    was the embeddings before. That of a pipeline's component (`unet/config.json`) speaks of the tensors under the
    component's name.
    """
    folder = name.removesuffix("config.json")
    header = {tensor: spec for tensor, spec in header.items() if tensor.startswith(folder)}
    below = bottom(donor)
    rows = vocabulary_rows(header)
    before = vocabulary_rows({n: s for n, s in below.header.items() if n.startswith(folder)})
    untied = HEAD in header and HEAD not in below.header and is_tied(below)
    return config_with_dtype(
        data, main_dtype(header), rows if before is not None and rows != before else None, untied=untied
    )


def vocabulary_rows(header: Header) -> int | None:
    """The number of rows of the input embeddings; None where there are none to be known by their name."""
    found = [spec.shape[0] for name, spec in header.items() if _EMBEDDINGS.search(name) and spec.shape]
    return found[0] if found else None


def config_with_dtype(
    data: bytes, dtype: str | None, rows: int | None = None, *, untied: bool = False
) -> bytes:
    """config.json with `dtype`/`torch_dtype` and, where given, `vocab_size` as they are; the same bytes if they were.

    `rows` is the length of a vocabulary that was cut or filled up, `untied` says that the head is no longer the
    embeddings.
    """
    config = json.loads(data.decode("utf-8-sig"))
    if not isinstance(config, dict):
        return data
    changed = dtype is not None and _set(config, dtype)
    if rows is not None:
        changed |= _set_rows(config, rows)
    if untied:
        changed |= _untie(config)
    if not changed:
        return data
    return (json.dumps(config, indent=2) + "\n").encode("ascii")


def _untie(config: dict[str, object]) -> bool:
    text = config.get("text_config")
    parts = [config, *([text] if isinstance(text, dict) else [])]
    changed = any(part.get("tie_word_embeddings") is not False for part in parts)
    for part in parts:
        part["tie_word_embeddings"] = False
    return changed


def _set_rows(config: dict[str, object], rows: int) -> bool:
    changed = False
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and isinstance(part.get("vocab_size"), int) and part["vocab_size"] != rows:
            part["vocab_size"] = rows
            changed = True
    return changed


def _set(config: dict[str, object], dtype: str) -> bool:
    changed = False
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("_config"):
            changed |= _set(value, dtype)
        elif (
            key in _KEYS
            and isinstance(value, str)
            and value.removeprefix("torch.") in _WRITTEN
            and value.removeprefix("torch.") != dtype
        ):
            config[key] = dtype
            changed = True
    return changed
