"""Which files of a commit a checkpoint needs: everything beside the weights, and the weights the folder rules choose."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Final

from rsoup.dialects import ADAPTER_CONFIG, ADAPTER_FILES
from rsoup.errors import AccessError, RefusedFileError, show
from rsoup.hub.commit import Commit
from rsoup.storage.folder import CARD, find_parts, is_weights, side_files

_NOT_ENTERED: Final = re.compile(r"checkpoint-[0-9]+|runs|logs|global_step.*|wandb")
_MANIFESTS: Final = ("rsoup.json", "rsoup.tensors.json", CARD)
_MAX_FILES: Final = 5000


def names_in(paths: Iterable[str], folder: str) -> list[str]:
    """The relative names in a folder of a repository that a checkpoint's folder would list, sorted."""
    prefix = f"{folder}/" if folder else ""
    names = sorted(path[len(prefix) :] for path in paths if path.startswith(prefix))
    return [name for name in names if _is_listed(name.split("/"))]


def _is_listed(parts: list[str]) -> bool:
    return not any(part.startswith(".") for part in parts) and not any(
        _NOT_ENTERED.fullmatch(part) for part in parts[:-1]
    )


def folder_and_file(commit: Commit, path: str, shown: str) -> tuple[str, str | None]:
    """(folder, weight file in it or None) of a path in a repository. Raises AccessError E0714."""
    files = commit.files or {}
    if path in files:
        folder, _, name = path.rpartition("/")
        return folder, name
    if path and not any(name.startswith(f"{path}/") for name in files):
        raise AccessError("E0714", "the model has no such file or folder", where=shown,
                          hint="hf models list-files, or its page on the Hub, says what is there")  # fmt: skip
    return path, None


def beside(names: list[str]) -> list[str]:
    """The names that are no weights and that a checkpoint or its reader may need."""
    along, skipped = side_files(names, ())
    return [*along, *(name for name in skipped if name.rpartition("/")[2] in _MANIFESTS or _is_index(name))]


def _is_index(name: str) -> bool:
    return name.endswith(".json") and ".index." in name


def weights_of(
    folder: str, names: list[str], variant: str | None, shown: str, ready: Callable[[list[str]], None]
) -> list[str]:
    """The weight files of the checkpoint whose files are called `names`; `ready` brings indices into `folder` first.

    Raises what opening such a folder raises: E0703, E0809 to E0812.
    """
    if len(names) > _MAX_FILES:
        raise RefusedFileError("E0810", f"more than {_MAX_FILES} files", where=shown,
                               hint="name the folder that holds the weights: hf://org/name@revision/folder")  # fmt: skip
    ready([name for name in names if _is_index(name)])
    if any(name.endswith(".distcp") for name in names):
        raise RefusedFileError("E0810", "distributed checkpoints are read from a disk only", where=shown,
                               hint="hf download it, and name that folder")  # fmt: skip
    parts = find_parts(folder, names, variant, shown)
    return [f"{part}{file}" for part, found in parts.items() for file in found.names]


def may_be_adapter(names: list[str]) -> bool:
    """Whether these files are an adapter or one file of weights without a configuration, which may be one."""
    top = [name for name in names if "/" not in name]
    if ADAPTER_CONFIG in top:
        return True
    alone = [name for name in top if is_weights(name)]
    return len(alone) == 1 and not {"config.json", "model_index.json"} & set(top)


def adapter_files(names: list[str]) -> list[str]:
    """The weights of an adapter among `names`."""
    return [name for name in names if name in ADAPTER_FILES][:1] or [
        name for name in names if "/" not in name and name.endswith(".safetensors")
    ]


def shown_in(shown: str, name: str) -> str:
    """What to call a file of an address."""
    return f"{shown}/{show(name)}" if name else shown


def local(folder: str, name: str) -> str:
    """The path of a file that a repository calls `name`."""
    return os.path.join(folder, *name.split("/"))
