"""The names of a file's tensors → which tool's low-rank factors they are, if any. Pure but for a peek at a header.

A and B averaged each by itself are no soup, so no file of factors may pass for a model's weights.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Final

from rsoup.hub.address import halves
from rsoup.hub.commit import snapshot_path
from rsoup.stores.address import split_far
from rsoup.stores.snapshot import copy_of

ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_FILES: Final = ("adapter_model.safetensors", "adapter_model.bin")

PEFT: Final = "PEFT"
DIFFUSERS: Final = "diffusers"
KOHYA: Final = "kohya (sd-scripts)"
LYCORIS: Final = "LyCORIS"
PROCESSORS: Final = "attention processors, as old versions of diffusers and XLabs wrote them"
COMFY: Final = "ComfyUI"
LOWER_CASE: Final = "MLX or torchtune"
INSIDE: Final = "layers inside a model's own weights"

_MAX_HEADER_BYTES: Final = 100_000_000
_PEFT_PREFIX: Final = "base_model.model."
_PEFT_KINDS: Final = re.compile(
    r"\.(?:lora_|hada_|lokr_|ia3_|oft_|boft_|vera_|vblora_|fourierft_|hra_|miss_|trainable_tokens_)\w+"
)
_DOWN: Final = (
    r"lora_A(?:\.[^.]+)?(?:\.weight)?|lora_embedding_A(?:\.[^.]+)?|lora_down\.weight|lora\.down\.weight|"
    r"lora_linear_layer\.down\.weight"
)
_UP: Final = (
    r"lora_B(?:\.[^.]+)?(?:\.weight)?|lora_embedding_B(?:\.[^.]+)?|lora_up\.weight|lora\.up\.weight|"
    r"lora_linear_layer\.up\.weight"
)
_LYCORIS: Final = (
    r"hada_[wt][12](?:_[ab])?|lokr_(?:w[12]|t2)(?:_[ab])?|lora_mid\.weight|oft_(?:blocks|diag)|boft_\w+|glora_\w+|"
    r"dora_scale|on_input|diff_b|diff|[ab][12]\.weight"
)
_FACTOR: Final = re.compile(rf"^(?P<module>.+)\.(?:(?P<down>{_DOWN})|{_UP})$")
_LIKE_LYCORIS: Final = re.compile(r"\.(?:hada_[wt][12]|lokr_(?:w[12]|t2))(?:_[ab])?$")
_OLD: Final = re.compile(r"(?:_lora|proj_lora[0-9]|qkv_lora[0-9])\.(?:down|up)\.weight$")
_LOWER: Final = re.compile(r"\.lora_[ab](?:\.weight)?$")
_MARKS: Final = ("lora", "hada_", "lokr_", "lycoris_")  # what every factor's name has; cheap to look for
_SD: Final = re.compile(r"^(?:lora|lycoris)_[a-z]+[0-9]?_")
_BESIDE: Final = re.compile(rf"\.(?:alpha|lora_magnitude_vector(?:\.weight)?|{_LYCORIS})$")
_ODD: Final = re.compile(rf"\.(?:{_LYCORIS})$")


def dialect_of(names: Iterable[str]) -> str | None:
    """Which tool's factors these are; None for tensors that are no factors: a model's, or another kind of adapter's.

    A file counts as factors where most of its tensors are; INSIDE is a model whose layers carry factors beside
    their own weights.
    """
    found = list(names)
    if found and all(name.startswith(_PEFT_PREFIX) for name in found):
        return PEFT if any(_PEFT_KINDS.search(name) for name in found) else None
    factors = [name for name in found if any(mark in name for mark in _MARKS) and _is_factor(name)]
    if not factors:
        return None
    if any(name.startswith(_PEFT_PREFIX) for name in factors) or _are_inside(found):
        return INSIDE
    beside = sum(1 for name in found if _BESIDE.search(name))
    if (len(factors) + beside) * 2 <= len(found):
        return None  # an architecture of its own that calls some weights so
    if any(_SD.match(name) for name in factors):
        return LYCORIS if any(_ODD.search(name) for name in found) else KOHYA
    if any(_LIKE_LYCORIS.search(name) for name in factors):
        return LYCORIS
    if any(_OLD.search(name) or ".processor." in name for name in factors):
        return PROCESSORS
    if any(name.startswith(("diffusion_model.", "model.diffusion_model.")) for name in factors):
        return COMFY
    if any(_LOWER.search(name) for name in factors):
        return LOWER_CASE
    if any(name.endswith((".lora_down.weight", ".lora_up.weight")) for name in factors):
        return KOHYA
    return DIFFUSERS


def _is_factor(name: str) -> bool:
    patterns = (_FACTOR, _LIKE_LYCORIS, _OLD, _LOWER)
    named = bool(_SD.match(name)) and bool(_BESIDE.search(name))
    return named or any(pattern.search(name) for pattern in patterns)


def _are_inside(names: Iterable[str]) -> bool:
    """Whether a module has a factor and a weight of its own beside it."""
    known = set(names)
    owners = {match["module"] for name in known if (match := _FACTOR.match(name)) and match["down"]}
    return any(f"{owner}.weight" in known or f"{owner}.base_layer.weight" in known for owner in owners)


def is_adapter_place(uri: str) -> bool:
    """Whether a path leads to an adapter rsoup mixes as such: PEFT's folder, or a LoRA of diffusers in safetensors.

    Of a file, or of a folder's one .safetensors file, the header is read; what cannot be read is none. A pinned
    address of the Hub is looked at in its cache, one of an object store where its copy lies.
    """
    if halves(uri) is not None:
        return False  # CHECKPOINT+ADAPTER is full weights
    uri = snapshot_path(copy_of(uri))
    if os.path.isfile(os.path.join(uri, ADAPTER_CONFIG)):
        return True
    if adapter_folder_of(uri) is not None:
        return True
    if os.path.isdir(uri):
        files = [name for name in _listed(uri) if name.endswith(".safetensors")]
        return len(files) == 1 and is_adapter_place(os.path.join(uri, files[0]))
    return uri.endswith(".safetensors") and os.path.isfile(uri) and dialect_of(_peeked(uri)) == DIFFUSERS


def split_stacked(uri: str) -> tuple[str, str] | None:
    """(checkpoint, adapter) of `CHECKPOINT+ADAPTER`; None for a path that exists as it stands, or without such parts."""
    if "+" not in uri or os.path.lexists(uri):
        return None
    if (far := split_far(uri)) is not None:
        return far
    for at in (i for i in range(len(uri) - 1, 0, -1) if uri[i] == "+"):
        if is_adapter_place(uri[at + 1 :]):
            return uri[:at], uri[at + 1 :]
    return None


def adapter_folder_of(uri: str) -> str | None:
    """The folder of a PEFT adapter whose weight file is at `uri`; None for any other path."""
    folder, name = os.path.split(uri)
    beside = os.path.join(folder, ADAPTER_CONFIG)
    return (folder or ".") if name in ADAPTER_FILES and os.path.isfile(beside) else None


def _listed(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []


def _peeked(path: str) -> list[str]:
    """The names in the header of a safetensors file; none where there is no such header."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            return names_of_head(head + (file.read(length) if length <= _MAX_HEADER_BYTES else b""))
    except OSError:
        return []


def names_of_head(head: bytes) -> list[str]:
    """The names in the first bytes of a safetensors file, if they may be factors'; none where that is no header."""
    text = head[8 : 8 + int.from_bytes(head[:8], "little")]
    try:
        found = json.loads(text) if b"lora" in text else {}
    except (ValueError, RecursionError):
        return []
    return [name for name in found if name != "__metadata__"] if isinstance(found, dict) else []
