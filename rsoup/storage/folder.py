"""Which files of a folder are the checkpoint's weights: the rules of transformers, read strictly."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rsoup.errors import AccessError, RefusedFileError, listing, show
from rsoup.storage.files import open_error
from rsoup.storage.index import Index, read_index

MAX_FILES = 5000
MAX_DEPTH = 8
STEMS = ("model", "diffusion_pytorch_model")
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.safetensors$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_OTHER_WEIGHTS = (
    *_PICKLES,
    ".safetensors",
    ".h5",
    ".msgpack",
    ".onnx",
    ".gguf",
    ".tflite",
    ".npz",
    ".distcp",
    ".pkl",
    ".joblib",
    ".mlmodel",
    ".ot",
)
CARD = "README.md"
_RUN_STATE = ("trainer_state.json", "scheduler.pt", "optimizer.pt", "rsoup.json", "rsoup.tensors.json", CARD)
_HINT_PICKLE = "load it with from_pretrained and save it with save_pretrained, which writes safetensors"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The weight files of a checkpoint, for a sharded one its index and the name of that, and notes."""

    names: tuple[str, ...]
    index: Index | None = None
    index_name: str | None = None
    notes: tuple[str, ...] = ()


def list_folder(folder: str, shown: str) -> list[str]:
    """The relative names of all files in `folder`, sorted; hidden ones and hidden folders left out.

    Folders of other checkpoints (`checkpoint-500`) and of runs are not entered.
    """
    found: list[str] = []
    _list_into(found, folder, "", shown)
    return found


def _list_into(found: list[str], folder: str, prefix: str, shown: str) -> None:
    at = f"{shown}/{show(prefix)}" if prefix else shown
    try:
        for entry in sorted(os.scandir(folder), key=lambda item: item.name):
            at = f"{shown}/{show(prefix + entry.name)}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if not re.fullmatch(r"checkpoint-[0-9]+|runs|logs|global_step.*|wandb", entry.name):
                    _list_into(found, os.path.join(folder, entry.name), f"{prefix}{entry.name}/", shown)
            elif not entry.is_dir():
                found.append(prefix + entry.name)
            if len(found) > MAX_FILES or prefix.count("/") > MAX_DEPTH:
                raise RefusedFileError(
                    "E0810",
                    f"more than {MAX_FILES} files, or folders {MAX_DEPTH} deep",
                    where=shown,
                    hint="this is not a checkpoint's folder; name the one that holds the weights",
                )
    except OSError as error:
        raise open_error(error, at) from error


def side_files(names: Sequence[str], weights: WeightFiles) -> tuple[list[str], list[str]]:
    """The names that go along with a soup, and those that do not: weights, run state, code, the old card."""
    own = {*weights.names, weights.index_name}
    along: list[str] = []
    skipped: list[str] = []
    for name in names:
        if name in own:
            continue
        last = name.rpartition("/")[2]
        other = (
            last.endswith((*_OTHER_WEIGHTS, ".py", ".index.json")) or ".index." in last or last in _RUN_STATE
        )
        (skipped if other else along).append(name)
    return along, skipped


def find_weights(folder: str, names: Sequence[str], variant: str | None, shown: str) -> WeightFiles:
    """The safetensors files that make up the checkpoint in `folder`, whose files are called `names`.

    `variant` picks `model.VARIANT.safetensors` and its like. Raises RefusedFileError: E0809 two models in
    one folder, E0810 no weights rsoup reads, E0811 a bad index; AccessError E0703 no such variant.
    """
    top = [name for name in names if "/" not in name]
    if "adapter_config.json" in top or any(name.startswith("adapter_model") for name in top):
        raise RefusedFileError(
            "E0812",
            "this is a PEFT adapter, not a full checkpoint; averaging its A and B factors would be wrong",
            where=shown,
            hint="merge it into its base first: PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(...)",
        )
    weights = [name for name in top if name.endswith(".safetensors") and not name.startswith("consolidated")]
    for stem in STEMS:
        found = _find_stem(folder, stem, top, weights, variant, shown)
        if found is not None:
            return found
    if variant is not None:
        raise AccessError(
            "E0703", f"there is no variant '{show(variant)}'", where=shown, hint=_variants_hint(top)
        )
    if len(weights) == 1 and not _SHARD.match(weights[0]):
        return WeightFiles((weights[0],), notes=_companions(top, weights, weights[0]))
    raise _nothing(top, weights, shown)


def _find_stem(
    folder: str, stem: str, top: Sequence[str], weights: Sequence[str], variant: str | None, shown: str
) -> WeightFiles | None:
    wanted = f".{variant}" if variant else ""
    single, index = f"{stem}{wanted}.safetensors", f"{stem}.safetensors.index{wanted}.json"
    if single not in weights and index not in top:
        only = _only_variant(stem, top) if variant is None else None
        found = None if only is None else _find_stem(folder, stem, top, weights, only, shown)
        if found is None:
            return None
        return replace(found, notes=(*found.notes, f"only the variant '{show(only)}' is there; it is used"))
    shards = [
        name for name in weights if (match := _SHARD.match(name)) and match["stem"] == f"{stem}{wanted}"
    ]
    if index not in top:
        if shards:
            raise _two_models(single, shards, shown)
        return WeightFiles((single,), notes=_companions(top, [single], single))
    read = read_index(os.path.join(folder, index), f"{shown}/{show(index)}")
    listed = tuple(sorted(set(read.weight_map.values())))
    if single in weights and single not in listed:
        raise _two_models(single, list(listed), shown)
    if missing := [name for name in listed if name not in top]:
        raise RefusedFileError(
            "E0811",
            f"{len(missing)} of {len(listed)} shards are missing: {listing(missing)}",
            where=f"{shown}/{show(index)}",
            hint="an incomplete download? fetch the rest",
        )
    if stale := [name for name in shards if name not in listed]:
        raise _two_models(listed[0], stale, shown)
    return WeightFiles(listed, read, index, _companions(top, listed, index))


def _two_models(one: str, others: Sequence[str], shown: str) -> RefusedFileError:
    return RefusedFileError(
        "E0809",
        f"two models lie in one folder: '{show(one)}' and {listing(list(others), 2)}",
        where=shown,
        hint="transformers would load one and vLLM the other; remove the files of the older one",
    )


def _variant_names(stem: str, top: Sequence[str]) -> list[str]:
    names = set()
    for name in top:
        single = re.fullmatch(re.escape(stem) + r"\.([A-Za-z0-9_]+)\.safetensors", name)
        index = re.fullmatch(re.escape(stem) + r"\.safetensors\.index\.([A-Za-z0-9_]+)\.json", name)
        if match := single or index:
            names.add(match[1])
    return sorted(names)


def _only_variant(stem: str, top: Sequence[str]) -> str | None:
    names = _variant_names(stem, top)
    return names[0] if len(names) == 1 else None


def _variants_hint(top: Sequence[str]) -> str:
    names = sorted({name for stem in STEMS for name in _variant_names(stem, top)})
    return f"there are: {', '.join(map(show, names))}" if names else "leave out --variant"


def _companions(top: Sequence[str], files: Sequence[str], used: str) -> tuple[str, ...]:
    """Notes on weights beside the `files` that are read, which one calls `used`."""
    notes = []
    others = [name for name in top if name.endswith(".safetensors") and name not in files]
    if pickles := [name for name in top if name.endswith(_PICKLES) and "pytorch_model" in name]:
        notes.append(f"{show(used)} is read; {listing(pickles, 2)} beside it is left alone")
    consolidated = [name for name in others if name.startswith("consolidated")]
    if consolidated:
        notes.append(f"{listing(consolidated, 2)} holds the same model in another layout and is left alone")
    if unused := [name for name in others if name not in consolidated]:
        notes.append(f"{show(used)} is read; {listing(unused, 2)} beside it is left alone")
    return tuple(notes)


def _nothing(top: Sequence[str], weights: Sequence[str], shown: str) -> RefusedFileError | AccessError:
    for stem in STEMS:
        if variants := _variant_names(stem, top):
            return AccessError(
                "E0703",
                f"there are only variants: {listing(variants)}",
                where=shown,
                hint=f"choose one: --variant {show(variants[0])}",
            )
    if shards := [name for name in weights if _SHARD.match(name)]:
        return RefusedFileError(
            "E0811",
            f"there are shards ({listing(shards, 2)}) but no index.json that says what is in them",
            where=shown,
            hint="an incomplete download? fetch the index too",
        )
    if len(weights) > 1:
        return RefusedFileError(
            "E0809",
            f"several weight files and no index: {listing(list(weights))}",
            where=shown,
            hint="name the one you mean: FOLDER/FILE.safetensors",
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
    if "model_index.json" in top:
        return RefusedFileError(
            "E0810",
            "this is a diffusers pipeline",
            where=shown,
            hint="name one of its components: FOLDER/unet or FOLDER/transformer",
        )
    if pickles := [name for name in top if name.endswith(_PICKLES)]:
        return RefusedFileError(
            "E0810",
            f"only pickled weights are here ({listing(pickles, 2)}); rsoup reads safetensors",
            where=shown,
            hint=_HINT_PICKLE,
        )
    if packed := [name for name in top if name.endswith((".gguf", ".onnx", ".h5", ".msgpack", ".distcp"))]:
        return RefusedFileError(
            "E0810",
            f"the weights are in a format rsoup does not mix: {listing(packed, 2)}",
            where=shown,
            hint="mix the original safetensors checkpoints, then convert the soup",
        )
    return RefusedFileError(
        "E0810",
        "there are no weights in this folder",
        where=shown,
        hint="a checkpoint folder holds model.safetensors, or shards and their index",
    )
