"""Which files of a folder are the checkpoint's weights: the rules of transformers, read strictly."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from rsoup.dialects import ADAPTER_CONFIG, ADAPTER_FILES
from rsoup.errors import AccessError, RefusedFileError, listing, show
from rsoup.storage.files import open_error
from rsoup.storage.index import Index, read_index
from rsoup.storage.no_weights import PICKLES, SHARD, STEMS, nothing, variant_names, variants_hint

MAX_FILES = 5000
MAX_DEPTH = 8
_TRAINING = re.compile(
    r"(?:optimizer|scheduler|scaler|rng_state|training_args|random_states|optimizer_|dataloader).*"
)
_OTHER_WEIGHTS = (
    *PICKLES,
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


def side_files(names: Sequence[str], own: Collection[str]) -> tuple[list[str], list[str]]:
    """The names that go along with a soup, and those that do not: weights, run state, code, the old card.

    `own` are the checkpoint's weight files and their indices, which are neither.
    """
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


def find_parts(folder: str, names: Sequence[str], variant: str | None, shown: str) -> dict[str, WeightFiles]:
    """Prefix → weight files: one part with the prefix '' for a model, one per component (`unet/`) for a pipeline.

    A pipeline of diffusers has a `model_index.json`; its components are the subfolders with weights in them.
    A variant that a component does not have is not asked of it, as long as one has it. Raises as `find_weights`.
    """
    if "model_index.json" not in names or any("/" not in name and is_weights(name) for name in names):
        return {"": find_weights(folder, names, variant, shown)}
    found: dict[str, WeightFiles] = {}
    lacking = 0
    for part in dict.fromkeys(name.partition("/")[0] for name in names if name.count("/") == 1):
        inner = [name.partition("/")[2] for name in names if name.startswith(f"{part}/")]
        if not any("/" not in name and is_weights(name) for name in inner):
            continue
        path, at = os.path.join(folder, part), f"{shown}/{show(part)}"
        try:
            found[f"{part}/"] = find_weights(path, inner, variant, at)
        except AccessError:
            if variant is None:
                raise
            lacking += 1
            found[f"{part}/"] = find_weights(path, inner, None, at)
    if not found:
        raise nothing([], [], shown)
    if lacking == len(found):
        raise AccessError(
            "E0703", f"there is no variant '{show(variant)}'", where=shown, hint="leave out --variant"
        )
    return found


def is_weights(name: str) -> bool:
    """Whether a file of this name holds the weights of a model, in a format rsoup reads."""
    return name.endswith((".safetensors", *PICKLES)) and not _TRAINING.fullmatch(name)


def find_weights(folder: str, names: Sequence[str], variant: str | None, shown: str) -> WeightFiles:
    """The files that make up the checkpoint in `folder`, whose files are called `names`.

    safetensors where there are any, else what torch.save wrote. `variant` picks `model.VARIANT.safetensors` and
    its like. Raises RefusedFileError: E0809 two models in one folder, E0810 no weights rsoup reads, E0811 a bad
    index; AccessError E0703 no such variant.
    """
    top = [name for name in names if "/" not in name]
    weights = [name for name in top if is_weights(name) and not name.startswith("consolidated")]
    if ADAPTER_CONFIG in top or any(name.startswith("adapter_model") for name in top):
        return _find_adapter(top, weights, shown)
    for stem, ending in STEMS:
        found = _find_stem(folder, stem, ending, top, weights, variant, shown)
        if found is not None:
            return found
    if variant is not None:
        raise AccessError(
            "E0703", f"there is no variant '{show(variant)}'", where=shown, hint=variants_hint(top)
        )
    for endings in ((".safetensors",), PICKLES):
        fitting = [name for name in weights if name.endswith(endings)]
        if len(fitting) == 1 and not SHARD.match(fitting[0]):
            return WeightFiles((fitting[0],), notes=_companions(top, fitting, fitting[0]))
        if fitting:
            break
    raise nothing(top, weights, shown)


def _find_adapter(top: Sequence[str], weights: Sequence[str], shown: str) -> WeightFiles:
    """The one file of an adapter's folder; what it means is its configuration's to say."""
    mine = [name for name in ADAPTER_FILES if name in top]
    if others := [name for name in weights if name not in ADAPTER_FILES]:
        raise _two_models((mine or [ADAPTER_CONFIG])[0], others, shown)
    if not mine or ADAPTER_CONFIG not in top:
        there, lacking = (mine[0], ADAPTER_CONFIG) if mine else (ADAPTER_CONFIG, ADAPTER_FILES[0])
        raise RefusedFileError(
            "E0812",
            f"half an adapter: {there} without {lacking}",
            where=shown,
            hint="an incomplete download or save? fetch or save it again",
        )
    return WeightFiles(tuple(mine[:1]), notes=_companions(top, mine[:1], mine[0]))


def _find_stem(
    folder: str,
    stem: str,
    ending: str,
    top: Sequence[str],
    weights: Sequence[str],
    variant: str | None,
    shown: str,
) -> WeightFiles | None:
    wanted = f".{variant}" if variant else ""
    single, index = f"{stem}{wanted}.{ending}", f"{stem}.{ending}.index{wanted}.json"
    if single not in weights and index not in top:
        only = _only_variant(stem, ending, top) if variant is None else None
        found = None if only is None else _find_stem(folder, stem, ending, top, weights, only, shown)
        if found is None:
            return None
        return replace(found, notes=(*found.notes, f"only the variant '{show(only)}' is there; it is used"))
    shards = [
        name
        for name in weights
        if (match := SHARD.match(name)) and match["stem"] == f"{stem}{wanted}" and match["ending"] == ending
    ]
    if index not in top:
        if shards:
            raise _two_models(single, shards, shown)
        return WeightFiles((single,), notes=_companions(top, [single], single))
    read = read_index(os.path.join(folder, index), f"{shown}/{show(index)}", f".{ending}")
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


def _only_variant(stem: str, ending: str, top: Sequence[str]) -> str | None:
    names = variant_names(stem, ending, top)
    return names[0] if len(names) == 1 else None


def _companions(top: Sequence[str], files: Sequence[str], used: str) -> tuple[str, ...]:
    """Notes on weights beside the `files` that are read, which one calls `used`."""
    notes = []
    others = [name for name in top if name.endswith(".safetensors") and name not in files]
    pickles = [
        name for name in top if name.endswith(PICKLES) and "pytorch_model" in name and name not in files
    ]
    if pickles:
        notes.append(f"{show(used)} is read; {listing(pickles, 2)} beside it is left alone")
    consolidated = [name for name in others if name.startswith("consolidated")]
    if consolidated:
        notes.append(f"{listing(consolidated, 2)} holds the same model in another layout and is left alone")
    if unused := [name for name in others if name not in consolidated]:
        notes.append(f"{show(used)} is read; {listing(unused, 2)} beside it is left alone")
    return tuple(notes)
