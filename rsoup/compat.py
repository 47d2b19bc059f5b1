"""Headers → mismatches: can these checkpoints be mixed, tensor by tensor? Pure; no weights are read."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsoup.errors import listing, show
from rsoup.tensors import Header


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A group of tensors with the same fault: which kind, which tensors, what to say of them, a guess why.

    Kinds: `missing` (not in every checkpoint), `shape`, `dtype` (one side cannot be averaged), `quantised`,
    `config`, `tokenizer`, `empty`.
    """

    kind: str
    what: str
    tensors: tuple[str, ...] = ()
    guess: str | None = None


def dropped(headers: Sequence[Header], globs: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each glob of `--drop`, the tensor names it matches in any of the checkpoints."""
    names = dict.fromkeys(name for header in headers for name in header)
    return {glob: tuple(fnmatch.filter(names, glob)) for glob in globs}


def compare_headers(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    """Every way in which the tensor sets, shapes and dtypes of `checkpoints` (name → header) differ.

    The first checkpoint is the measure. Tensors with the same fault are one mismatch.
    """
    names = list(checkpoints)
    found: list[Mismatch] = []
    if empty := [name for name in names if not checkpoints[name]]:
        found.append(Mismatch("empty", f"{listing(empty)} holds no tensors at all"))
    found += _missing(checkpoints)
    found += _unlike(checkpoints)
    return found


def _missing(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for tensor in dict.fromkeys(tensor for header in checkpoints.values() for tensor in header):
        lacking = tuple(name for name, header in checkpoints.items() if tensor not in header)
        if lacking:
            groups.setdefault(lacking, []).append(tensor)
    result = []
    for lacking, tensors in groups.items():
        having = [name for name in checkpoints if name not in lacking]
        what = (
            f"{_count(tensors)} of {listing(having)} not in {listing(list(lacking))}: {listing(tensors, 3)}"
        )
        result.append(Mismatch("missing", what, tuple(tensors), _why_missing(tensors, checkpoints, lacking)))
    return result


def _count(tensors: Sequence[str]) -> str:
    return "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"


_PREFIXES = ("module.", "_orig_mod.", "model.", "base_model.model.", "transformer.", "language_model.")


def _why_missing(
    tensors: Sequence[str], checkpoints: Mapping[str, Header], lacking: Sequence[str]
) -> str | None:
    if all(name.endswith("lm_head.weight") for name in tensors):
        return "a tied head, stored by one and left out by the other? if they are equal to the embeddings: --drop lm_head.weight"
    if all(re.search(r"(^|\.)(v_head|score|value_head|reward_head)\.", name) for name in tensors):
        return f"a value or reward head that only training needs? then: --drop '{tensors[0].split('.')[0]}.*'"
    if any(".lora_" in name or "lora_A" in name for name in tensors):
        return "a LoRA adapter? merge it into its base first"
    for name in lacking:
        header = checkpoints[name]
        for prefix in _PREFIXES:
            if all(f"{prefix}{tensor}" in header for tensor in tensors):
                return (
                    f"the same tensors are called '{prefix}…' in '{show(name)}': saved from a wrapped model"
                )
            if all(tensor.startswith(prefix) and tensor[len(prefix) :] in header for tensor in tensors):
                return f"the same tensors lack the prefix '{prefix}' in '{show(name)}'"
        if any(re.search(r"experts\.[0-9]+\.", tensor) for tensor in (*tensors, *header)) and any(
            re.search(r"experts\.[a-z_]+$", tensor) for tensor in (*tensors, *header)
        ):
            return (
                "fused experts in one and separate ones in the other: saved with save_original_format=False?"
            )
    return None


def _unlike(checkpoints: Mapping[str, Header]) -> list[Mismatch]:
    names = list(checkpoints)
    shapes: dict[tuple[str, str], list[str]] = {}
    dtypes: dict[tuple[str, str, str, str], list[str]] = {}
    first = checkpoints[names[0]]
    for tensor, spec in first.items():
        for name in names[1:]:
            other = checkpoints[name].get(tensor)
            if other is None or other == spec:
                continue
            if other.shape != spec.shape:
                shapes.setdefault((names[0], name), []).append(tensor)
            elif other.dtype != spec.dtype and not (spec.dtype.kind == other.dtype.kind == "float"):
                dtypes.setdefault((names[0], name, spec.dtype.name, other.dtype.name), []).append(tensor)
    result = []
    for (one, other_name), tensors in shapes.items():
        examples = "; ".join(
            f"'{show(tensor)}' is {list(first[tensor].shape)} and {list(checkpoints[other_name][tensor].shape)}"
            for tensor in tensors[:3]
        )
        what = f"{_count(tensors)} of another shape in '{show(one)}' and '{show(other_name)}': {examples}"
        result.append(
            Mismatch(
                "shape",
                what,
                tuple(tensors),
                _why_shape(tensors, first, checkpoints[other_name], one, other_name),
            )
        )
    for (one, other_name, a, b), tensors in dtypes.items():
        what = f"{_count(tensors)} stored as {a} in '{show(one)}' and as {b} in '{show(other_name)}': {listing(tensors, 3)}"
        result.append(
            Mismatch(
                "dtype", what, tuple(tensors), "one of them is quantised? mix the originals, then quantise"
            )
        )
    return result


_VOCABULARY = re.compile(
    r"(embed_tokens|wte|word_embeddings|lm_head|embed_in|embed_out|shared|embeddings\.tok_embeddings|output)\.(weight|bias)$"
)


def _why_shape(tensors: Sequence[str], one: Header, other: Header, first: str, second: str) -> str | None:
    if all(_VOCABULARY.search(tensor) for tensor in tensors):
        rows = [(one[tensor].shape[:1], other[tensor].shape[:1]) for tensor in tensors]
        if len(set(rows)) == 1 and all(one[t].shape[1:] == other[t].shape[1:] for t in tensors):
            a, b = rows[0][0][0], rows[0][1][0]
            larger = first if a > b else second
            return (
                f"a resized or padded vocabulary: rows {min(a, b)} to {max(a, b) - 1} exist only in '{show(larger)}'; "
                "resize both to the same size with resize_token_embeddings"
            )
    if all(sorted(one[tensor].shape) == sorted(other[tensor].shape) for tensor in tensors):
        return "transposed in one of them (Conv1D and Linear?)"
    return "models of different sizes?"


_QUANTISED = (
    (
        "bitsandbytes",
        re.compile(r"\.(absmax|quant_map|nested_absmax|nested_quant_map|SCB|weight_format)$|\.quant_state\."),
    ),
    ("GPTQ or AWQ", re.compile(r"\.(qweight|qzeros|g_idx)$")),
    (
        "scaled fp8",
        re.compile(
            r"\.(weight_scale|weight_scale_inv|input_scale|weight_scale_2|scale_weight|k_scale|v_scale)$"
        ),
    ),
    ("compressed-tensors", re.compile(r"\.(weight_packed|weight_zero_point|weight_g_idx)$")),
    ("MXFP4 or NVFP4", re.compile(r"_(blocks|scales)$|\.weight_global_scale$")),
    ("AQLM", re.compile(r"\.(codebooks|codes)$")),
    ("EETQ", re.compile(r"\.weight_scales$")),
    ("quanto or torchao", re.compile(r"\.(_data|_scale|_shift|tensor_impl.*|weight\._data|weight\._scale)$")),
)
_ORDER = "mix the original checkpoints, then quantise the soup"


def quantised(name: str, header: Header, config: Mapping[str, object] | None) -> Mismatch | None:
    """How this checkpoint is quantised, as a mismatch; None where its floats are the weights themselves."""
    described = (config or {}).get("quantization_config") or (config or {}).get("compression_config")
    if described:
        method = (
            described.get("quant_method") or described.get("format") if isinstance(described, dict) else None
        )
        what = f"'{show(name)}' is quantised ({show(method or 'see quantization_config in its config.json')})"
        return Mismatch("quantised", what, (), _ORDER)
    for method, pattern in _QUANTISED:
        found = [tensor for tensor in header if pattern.search(tensor)]
        if found:
            what = f"'{show(name)}' is quantised ({method}): {listing(found, 3)} hold codes or scales, not weights"
            return Mismatch("quantised", what, tuple(found), _ORDER)
    packed = [
        tensor
        for tensor, spec in header.items()
        if spec.dtype.kind == "packed" and "FNUZ" not in spec.dtype.name
    ]
    if packed:
        kinds = sorted({header[tensor].dtype.name for tensor in packed})
        what = f"'{show(name)}' holds {', '.join(kinds)} in {listing(packed, 3)}: packed numbers or scales of blocks"
        return Mismatch("quantised", what, tuple(packed), _ORDER)
    return None
