"""Does the library that the soup's format belongs to read the same tensors? safetensors, torch, transformers, diffusers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rsoup.compat.files import MAX_CONFIG_BYTES
from rsoup.errors import listing, show
from rsoup.proof.claims import folder_of
from rsoup.proof.elements import unlike
from rsoup.proof.verdict import Difference, Level
from rsoup.storage.files import parse_json
from rsoup.storage.pickled.sb3 import POLICY
from rsoup.storage.protocols import FileLayout, Source

if TYPE_CHECKING:
    import torch


def load(out: str, soup: Source) -> Level:
    """Whether safetensors or torch.load, and the from_pretrained of a folder's library, give the tensors rsoup reads.

    A model that transformers or diffusers knows is loaded whole, into memory; not a key may be missing,
    unexpected or of another shape. Code from the folder is never run, nor the pickled objects in an archive of
    Stable-Baselines3: its members are opened one by one.
    """
    found: list[Difference] = []
    said = []
    if all(file.name.endswith(".safetensors") for file in soup.files):
        found += _with_safetensors(folder_of(out), soup)
        said.append(f"safetensors {importlib.metadata.version('safetensors')} reads the same tensors")
    else:
        found += [d for file in soup.files for d in _with_torch(folder_of(out), file, soup)]
        said.append(f"torch {importlib.metadata.version('torch')} reads the same tensors")
    with _quiet():
        more, text = _with_its_library(out, soup)
    found += more
    said.append(text)
    return Level(None, "load", "; ".join(said), tuple(found), {"tensors": len(soup.header)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Libraries that draw bars and say things on stderr do not, meanwhile; where they cannot be told so, they may."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def _with_its_library(out: str, soup: Source) -> tuple[list[Difference], str]:
    """(differences, what was done): the library that the folder's own files name loads it."""
    if "model_index.json" in soup.side_files:
        return _with_diffusers(out, soup)
    data = soup.side_file("config.json", MAX_CONFIG_BYTES) if os.path.isdir(out) else None
    config = parse_json(data, "config.json") if data is not None else None
    if isinstance(config, dict) and "_diffusers_version" in config:
        return _with_diffusers(out, soup, str(config.get("_class_name")))
    return _with_transformers(out, config, soup)


def _with_safetensors(folder: str, soup: Source) -> list[Difference]:
    from safetensors import safe_open

    found = []
    for file in soup.files:
        with safe_open(os.path.join(folder, file.name), framework="pt") as opened:
            inner = inner_names(file.name, file.tensors)
            names = set(opened.keys())
            if names != {*inner.values()}:
                found.append(Difference(show(file.name), "safetensors sees other tensors in it"))
            for name in file.tensors:
                if inner[name] in names and soup.header[name].dtype.torch_name:
                    found += _compared(soup, name, opened.get_tensor(inner[name]), "safetensors")
    return found


def inner_names(file: str, tensors: Sequence[str]) -> dict[str, str]:
    """Tensor → its name inside the file: those of a pipeline's component (`unet/…`) go without it."""
    folder = file.rpartition("/")[0]
    return {name: name[len(folder) + 1 :] if folder else name for name in tensors}


def _with_torch(folder: str, file: FileLayout, soup: Source) -> list[Difference]:
    """What torch.load sees otherwise in a file, which our own reader has found to hold nothing but tensors."""
    import io
    import zipfile

    import torch

    path, shown = os.path.join(folder, file.name), show(file.name)
    inner = inner_names(file.name, file.tensors)
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            return [Difference(shown, f"zipfile finds '{show(damaged)}' damaged")]
        source = io.BytesIO(archive.read(POLICY)) if POLICY in archive.namelist() else path
    value = torch.load(source, weights_only=True, map_location="cpu")
    if not isinstance(value, dict) or value.keys() != {*inner.values()}:
        return [Difference(shown, "torch sees other tensors in it")]
    return [d for name in file.tensors for d in _compared(soup, name, value[inner[name]], "torch")]


def _with_diffusers(out: str, soup: Source, kind: str = "DiffusionPipeline") -> tuple[list[Difference], str]:
    """(differences, what was done): diffusers loads the pipeline, or the component of class `kind`."""
    try:
        import diffusers
        import torch
    except ImportError:
        return [], "diffusers is not installed, and was not asked"
    made: Any = getattr(diffusers, kind, None) if kind.isidentifier() else None
    if made is None:
        return [], f"diffusers {diffusers.__version__} has no '{show(kind)}', and was not asked"
    safe = soup.files[0].name.endswith(".safetensors")
    options: dict[str, Any] = (
        {"trust_remote_code": False} if kind == "DiffusionPipeline" else {"use_safetensors": safe}
    )
    try:
        loaded = made.from_pretrained(out, local_files_only=True, variant=_variant(soup), **options)
    except Exception as error:
        return [Difference("diffusers", f"it cannot load the folder: {show(error, 300)}")], ""
    parts = (
        {f"{part}/": module for part, module in loaded.components.items()}
        if kind == "DiffusionPipeline"
        else {"": loaded}
    )
    state = {
        f"{part}{name}": value
        for part, module in parts.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.state_dict().items()
    }
    lacking = [name for name in soup.header if name not in state]
    found = (
        [Difference("diffusers", f"{len(lacking)} keys are not used: {listing(lacking)}")] if lacking else []
    )
    for name in soup.header:
        if name in state and soup.header[name].dtype.torch_name:
            found += _compared(soup, name, state[name], "diffusers")
    return (
        found,
        f"diffusers {diffusers.__version__} loads it as {type(loaded).__name__}, every tensor in its place",
    )


def _compared(soup: Source, name: str, value: torch.Tensor, library: str) -> list[Difference]:
    """How a loaded tensor differs from the bytes on the disk, if it does; another dtype is cast back first."""
    import torch

    spec = soup.header[name]
    if tuple(value.shape) != spec.shape:
        return [Difference(f"tensor '{show(name)}'", f"{library} gives it the shape {list(value.shape)}")]
    if spec.numel == 0:
        return []
    there = bytearray(spec.nbytes)
    soup.read(name, 0, memoryview(there))
    flat = value.detach().to(spec.dtype.torch).contiguous().reshape(-1)
    other = unlike(spec.dtype, memoryview(there), flat.view(torch.uint8).numpy().data)
    if other is None:
        return []
    what = f"{library} reads {other.other} where {other.one} stands (element {other.first})"
    return [Difference(f"tensor '{show(name)}'", what)]


def _with_transformers(out: str, config: object, soup: Source) -> tuple[list[Difference], str]:
    """(differences, what was done): the model class that config.json names loads the folder."""
    named = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        return [], "no config.json that names a transformers model"
    try:
        import transformers
    except ImportError:
        return [], "transformers is not installed, and was not asked"
    kind = getattr(transformers, named[0], None) if named[0].isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        return (
            [],
            f"transformers {transformers.__version__} has no model '{show(named[0])}', and was not asked",
        )
    text = f"transformers {transformers.__version__} loads it as {named[0]}, with no key missing, unexpected or of another shape"
    return _from_pretrained(kind, out, soup), text


def _from_pretrained(kind: Any, out: str, soup: Source) -> list[Difference]:
    variant = _variant(soup)
    try:
        model, info = kind.from_pretrained(
            out, output_loading_info=True, dtype="auto", local_files_only=True, trust_remote_code=False,
            use_safetensors=soup.files[0].name.endswith(".safetensors"),
            variant=variant,
        )  # fmt: skip
    except Exception as error:
        return [Difference("transformers", f"it cannot load the folder: {show(error, 300)}")]
    found = [
        Difference("transformers", f"{len(keys)} {what}: {listing([str(key) for key in keys])}")
        for key, what in (
            ("missing_keys", "keys are missing"),
            ("unexpected_keys", "keys are unexpected"),
            ("mismatched_keys", "keys have another shape"),
            ("error_msgs", "errors"),
        )
        if (keys := sorted(map(str, info.get(key) or ())))
    ]
    state = model.state_dict()
    for name in soup.header:
        if name in state and soup.header[name].dtype.torch_name:
            found += _compared(soup, name, state[name], "transformers")
    return found


def _variant(soup: Source) -> str | None:
    """`fp16` of `model.fp16.safetensors` and its like; None for the plain names."""
    stems = (os.path.splitext(os.path.basename(file.name))[0].partition("-")[0] for file in soup.files)
    return next((variant for stem in stems if (variant := stem.partition(".")[2])), None)
