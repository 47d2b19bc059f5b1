"""Why no weights were found in a folder, and what to do: said by what lies there instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rsoup.errors import AccessError, RefusedFileError, listing, show

STEMS = (
    ("model", "safetensors"),
    ("diffusion_pytorch_model", "safetensors"),
    ("pytorch_model", "bin"),
    ("diffusion_pytorch_model", "bin"),
)
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHARD = re.compile(r"^(?P<stem>.+)-[0-9]{5}-of-[0-9]{5}\.(?P<ending>safetensors|bin)$")

_TRAINED_ON = "write them as one checkpoint first: "
_SPLIT = tuple(
    (re.compile(pattern), what, _TRAINED_ON + hint)
    for pattern, what, hint in (
        (r".*\.distcp", "this is a part of a distributed checkpoint (DCP) of torch, without its .metadata",
         "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt, where all of it lies"),
        (r"zero_to_fp32\.py|(?:zero_pp_rank|mp_rank)_.*\.pt", "this is a checkpoint of DeepSpeed, split over ranks",
         "python zero_to_fp32.py . OUT --safe_serialization"),
        (r"model_world_size_\d+_rank_\d+\.pt", "these are the ranks of an FSDP run (verl)",
         "python -m verl.model_merger merge --backend fsdp --local_dir FOLDER --target_dir OUT"),
    )
)  # fmt: skip
_ELSEWHERE = tuple(
    (re.compile(pattern), what, hint)
    for pattern, what, hint in (
        (r".*\.gguf", "the weights are packed for llama.cpp",
         "mix the original checkpoints, then convert the soup: python convert_hf_to_gguf.py SOUP"),
        (r".*\.onnx", "this is a program of ONNX, not a checkpoint",
         "mix the original checkpoints, then export the soup: optimum-cli export onnx --model SOUP OUT"),
        (r"weights.*\.npz|.*\.mlpackage", "the weights are stored for MLX or Core ML",
         "mix the original checkpoints, then convert the soup: mlx_lm.convert --hf-path SOUP"),
        (r".*\.(?:h5|msgpack)", "the weights are stored for TensorFlow or Flax",
         "load them with transformers (from_tf or from_flax) and save them again"),
        (r".*\.(?:bin|pt|pth|ckpt)", "only the state of a training run is here, no weights", "name the folder of the model"),
    )
)  # fmt: skip


def variant_names(stem: str, ending: str, top: Sequence[str]) -> list[str]:
    """The variants of a stem that are there: `fp16` for model.fp16.safetensors."""
    names = set()
    for name in top:
        single = re.fullmatch(re.escape(stem) + r"\.([A-Za-z0-9_]+)\." + ending, name)
        index = re.fullmatch(re.escape(stem) + r"\." + ending + r"\.index\.([A-Za-z0-9_]+)\.json", name)
        if match := single or index:
            names.add(match[1])
    return sorted(names)


def variants_hint(top: Sequence[str]) -> str:
    """Which variants there are to choose from."""
    names = sorted({name for stem, ending in STEMS for name in variant_names(stem, ending, top)})
    return f"there are: {', '.join(map(show, names))}" if names else "leave out --variant"


def nothing(top: Sequence[str], weights: Sequence[str], shown: str) -> RefusedFileError | AccessError:
    """The refusal of a folder in which no weights were found, or too many."""
    for stem, ending in STEMS:
        if variants := variant_names(stem, ending, top):
            return AccessError(
                "E0703",
                f"there are only variants: {listing(variants)}",
                where=shown,
                hint=f"choose one: --variant {show(variants[0])}",
            )
    if shards := [name for name in weights if SHARD.match(name)]:
        return RefusedFileError(
            "E0811",
            f"there are shards ({listing(shards, 2)}) but no index.json that says what is in them",
            where=shown,
            hint="an incomplete download? fetch the index too",
        )
    for pattern, what, hint in _SPLIT:
        if found := [name for name in top if pattern.fullmatch(name)]:
            return RefusedFileError("E0810", f"{what}: {listing(found, 2)}", where=shown, hint=hint)
    if len(weights) > 1:
        return RefusedFileError(
            "E0809",
            f"several weight files and no index: {listing(list(weights))}",
            where=shown,
            hint=f"name the one you mean: FOLDER/{show(weights[0])}",
        )
    if consolidated := [
        name for name in top if name.startswith("consolidated") and name.endswith(".safetensors")
    ]:
        return RefusedFileError(
            "E0810",
            f"only {listing(consolidated, 2)} is here, which transformers does not load from a folder",
            where=shown,
            hint=f"name the file itself: FOLDER/{show(consolidated[0])}",
        )
    for pattern, what, hint in _ELSEWHERE:
        if found := [name for name in top if pattern.fullmatch(name)]:
            return RefusedFileError("E0810", f"{what}: {listing(found, 2)}", where=shown, hint=hint)
    return RefusedFileError(
        "E0810",
        "there are no weights in this folder",
        where=shown,
        hint="a checkpoint folder holds model.safetensors, or shards and their index; an adapter's adapter_model.safetensors",
    )
