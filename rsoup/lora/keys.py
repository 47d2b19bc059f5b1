"""The names of an adapter file's tensors → which module each belongs to, and what it is there. Pure.

The keys in the file are the truth: what the configuration says of targets is not needed to read it, and a key
that has no place is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rsoup.errors import RefusedFileError, listing, show
from rsoup.tensors import Header

PREFIX: Final = "base_model.model."
_LOW_RANK: Final = re.compile(
    r"^(?P<module>.+?)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector(?:\.weight)?|lora_A|lora_B|lora_E)$"
)
_TOKENS: Final = re.compile(r"(?:\.token_adapter)?\.trainable_tokens_delta$")
_BASE_LAYER: Final = re.compile(r"^(?P<module>.+?)(?:\.base_layer)+\.(?P<leaf>[A-Za-z_]+)$")
_WRAPPED: Final = re.compile(r"\.(?:modules_to_save|original_module)(?:\.|$)")
_PARTS: Final = {"lora_A.weight": "a", "lora_embedding_A": "a", "lora_A": "a", "lora_B.weight": "b",
                 "lora_embedding_B": "b", "lora_B": "b", "lora_B.bias": "bias", "lora_E": "e",
                 "lora_magnitude_vector": "magnitude", "lora_magnitude_vector.weight": "magnitude"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FactorKeys:
    """The keys of one module's update: its factors A and B, and what else it has.

    `embedding`: an embedding's, whose ΔW is (B·A)ᵀ. `e` are AdaLoRA's singular values.
    """

    a: str
    b: str
    embedding: bool = False
    e: str | None = None
    bias: str | None = None
    magnitude: str | None = None

    def all(self) -> tuple[str, ...]:
        """Every key there is, A and B first."""
        return tuple(key for key in (self.a, self.b, self.e, self.bias, self.magnitude) if key is not None)


@dataclass(frozen=True, slots=True)
class AdapterKeys:
    """What an adapter's file holds: factors by module, and by tensor name of the model the keys of what replaces it.

    `tensors` replace a whole tensor, `rows` some rows of an embedding; `beneath` are tensors saved along below an
    update: the base's own, or what was trained of them (biases), or a resized vocabulary.
    """

    factors: Mapping[str, FactorKeys]
    tensors: Mapping[str, str]
    rows: Mapping[str, str]
    beneath: Mapping[str, str]


def sorted_keys(keys: Iterable[str], where: str) -> AdapterKeys:
    """The place of every key. Raises RefusedFileError E0821 (a key without a place), E0822 (half an update)."""
    parts: dict[str, dict[str, str]] = {}
    tensors: dict[str, str] = {}
    rows: dict[str, str] = {}
    beneath: dict[str, str] = {}
    strange: list[str] = []
    for key in keys:
        name = key.removeprefix(PREFIX)
        if name == key or _WRAPPED.search(name):
            strange.append(key)
        elif found := _LOW_RANK.match(name):
            kind = _PARTS[found["part"]]
            module = parts.setdefault(found["module"], {})
            if kind in module:
                strange.append(key)
            module[kind] = key
        elif ".lora_" in name or ".ranknum" in name:
            strange.append(key)
        elif _TOKENS.search(name):
            rows[_TOKENS.sub(".weight", name)] = key
        elif found := _BASE_LAYER.match(name):
            beneath[f"{found['module']}.{found['leaf']}"] = key
        else:
            tensors[name] = key
    strange += _twice(parts, tensors)
    if strange:
        raise no_place(strange, where)
    return AdapterKeys({m: factors(m, p, where) for m, p in parts.items()}, tensors, rows, beneath)


def no_place(keys: list[str], where: str) -> RefusedFileError:
    """The error of keys that nothing explains."""
    return RefusedFileError(
        "E0821",
        f"{len(keys)} of its tensors have no place in an adapter as rsoup knows it: {listing(keys, 3)}",
        where=where,
        hint="written by another tool, or by a newer PEFT? load it with PEFT and save it again",
    )


def _twice(parts: Mapping[str, Mapping[str, str]], tensors: Mapping[str, str]) -> list[str]:
    """Keys of whole tensors that an update of the same file changes: what the adapter makes of them is not certain."""
    names = [f"{module}.weight" for module in parts]
    names += [f"{module}.bias" for module, own in parts.items() if "bias" in own]
    return [tensors[name] for name in names if name in tensors]


def factors(module: str, parts: Mapping[str, str], where: str) -> FactorKeys:
    """The keys of one module by what they are. Raises RefusedFileError E0822 where a factor is missing."""
    if "a" not in parts or "b" not in parts:
        raise RefusedFileError(
            "E0822",
            f"half an update: module '{show(module)}' has {listing(sorted(parts.values()))} and no other factor",
            where=where,
            hint="an incomplete save or download? fetch or save it again",
        )
    return FactorKeys(
        a=parts["a"],
        b=parts["b"],
        embedding=parts["a"].endswith("lora_embedding_A"),
        e=parts.get("e"),
        bias=parts.get("bias"),
        magnitude=parts.get("magnitude"),
    )


def check_floats(header: Header, where: str) -> None:
    """Raise RefusedFileError E0823 where a tensor is not of floats."""
    if strange := [key for key, spec in header.items() if spec.dtype.kind != "float"]:
        raise RefusedFileError(
            "E0823",
            f"{listing(strange, 3)} of {header[strange[0]].dtype.name}: an adapter's tensors are floats",
            where=where,
            hint="was it quantised? save the adapter as it was trained",
        )
