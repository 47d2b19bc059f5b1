"""config.json must tell the truth about the dtype the soup is stored in."""

from __future__ import annotations

import json

from rsoup.tensors import Header

_KEYS = ("dtype", "torch_dtype")
_WRITTEN = ("float64", "float32", "bfloat16", "float16")


def main_dtype(header: Header) -> str | None:
    """The torch name of the float dtype that takes most of the soup's bytes; None without floats."""
    sizes: dict[str, int] = {}
    for spec in header.values():
        if spec.dtype.torch_name in _WRITTEN:
            sizes[spec.dtype.torch_name] = sizes.get(spec.dtype.torch_name, 0) + spec.nbytes
    return max(sizes, key=lambda name: sizes[name]) if sizes else None


def config_with_dtype(data: bytes, dtype: str | None) -> bytes:
    """config.json with `dtype`/`torch_dtype` set to `dtype` wherever they name another; else the same bytes."""
    config = json.loads(data.decode("utf-8-sig"))
    if dtype is None or not isinstance(config, dict) or not _set(config, dtype):
        return data
    return (json.dumps(config, indent=2) + "\n").encode("ascii")


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
