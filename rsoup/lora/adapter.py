"""An adapter that is open: its configuration, its updates module by module, what it replaces; checked, not read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from rsoup.errors import IncompatibleError, RefusedFileError, listing, show
from rsoup.lora.config import MAX_CONFIG_BYTES, TOKENS, AdapterConfig, parse_config
from rsoup.lora.foreign import FOLDABLE
from rsoup.lora.keys import FactorKeys, check_floats, no_place, sorted_keys
from rsoup.lora.parameters import parameters
from rsoup.lora.pipelines import joined, parts_of
from rsoup.lora.token_rows import indices
from rsoup.lora.wholes import unasked
from rsoup.recipe import ADAPTER_CONFIG
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source
from rsoup.tensors import TensorSpec

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LowRank:
    """ΔW = s·B·A of one module: A is rank × `columns`, B is `rows` × rank, both flattened to two dimensions.

    `a_shape` and `b_shape` are those of the file. With `experts` E > 1 it is E updates of this rank: A is stored
    expert by expert (E·rank × columns), B rank by rank (rows × rank·E). `parameters` names what it changes if that is
    no module but a parameter (`target_parameters`); several are all it may be. Source: PEFT 0.21, `ParamWrapper`.
    `stem` is what its keys begin with where that is not PEFT's.
    """

    module: str
    keys: FactorKeys
    rank: int
    rows: int
    columns: int
    scaling: float
    a_shape: tuple[int, ...]
    b_shape: tuple[int, ...]
    experts: int = 1
    parameters: tuple[str, ...] = ()
    stem: str = ""

    @property
    def tensor(self) -> str:
        """The name of the weight it changes."""
        return f"{self.module}.weight"

    @property
    def bias_tensor(self) -> str:
        """The name of the bias that `lora_bias` changes."""
        return f"{self.module}.bias"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A PEFT adapter of low rank: `updates` by module, `tensors` and `rows` that replace some of the model's.

    `tensors` maps a name in the model to a key in the file, `rows` an embedding's name to (indices, key),
    `beneath` a name to the key of the tensor an update lies on, where the file brings one. `name` is the ingredient's.
    `of_pipeline`: a LoRA in the format of diffusers.
    """

    name: str
    source: Source = field(repr=False)
    config: AdapterConfig = field(repr=False)
    updates: Mapping[str, LowRank]
    tensors: Mapping[str, str]
    rows: Mapping[str, tuple[tuple[int, ...], str]]
    beneath: Mapping[str, str]
    of_pipeline: bool = False

    def spec(self, key: str) -> TensorSpec:
        """The dtype and shape of a tensor of the file."""
        return self.source.header[key]

    def read(self, key: str) -> torch.Tensor:
        """A tensor of the file, float64, in its shape. Raises IncompatibleError E0304 where it is not finite."""
        return read_float64(self.source, key, self.name)

    def a(self, update: LowRank) -> torch.Tensor:
        """A as (experts·rank) × columns, float64; AdaLoRA's singular values are multiplied in."""
        import torch

        found = self.read(update.keys.a).reshape(-1, update.columns)
        if update.keys.e is not None:
            found = found * self.read(update.keys.e).reshape(-1, 1).to(torch.float64)
        return found

    def b(self, update: LowRank) -> torch.Tensor:
        """B as rows × (rank·experts), float64."""
        return self.read(update.keys.b).reshape(update.rows, -1)

    def began(self, update: LowRank) -> str | None:
        """How the factors of an update began where that took something out of the base, and the file has not the rest."""
        return None if update.tensor in self.beneath else self.config.init

    @property
    def uses_dora(self) -> bool:
        """Whether some update has a magnitude vector."""
        return any(update.keys.magnitude is not None for update in self.updates.values())


def read_float64(source: Source, key: str, name: str) -> torch.Tensor:
    """A tensor of a source in float64. Raises IncompatibleError E0304 where an element is NaN or infinite."""
    import torch

    spec = source.header[key]
    if spec.numel == 0:
        return torch.zeros(spec.shape, dtype=torch.float64)
    buffer = bytearray(spec.nbytes)
    source.read(key, 0, memoryview(buffer))
    found = torch.frombuffer(buffer, dtype=spec.dtype.torch).reshape(spec.shape).to(torch.float64)
    if not math.isfinite(found.sum().item()) and not bool(found.isfinite().all()):
        bad = int((~found.isfinite()).sum())
        raise IncompatibleError(
            "E0304",
            f"tensor '{show(key)}' of '{show(name)}' is NaN or infinite in {bad} of its elements",
            hint=f"leave '{show(name)}' out: its training broke",
        )
    return found


def is_adapter(source: Source) -> bool:
    """Whether a source is an adapter's rather than a model's."""
    if is_pipeline_lora(source):
        return True
    return ADAPTER_CONFIG in source.side_files and not any(f.name.startswith("model") for f in source.files)


def is_pipeline_lora(source: Source) -> TypeGuard[CheckpointSource]:
    """Whether a source is a LoRA in the format of diffusers."""
    return isinstance(source, CheckpointSource) and source.is_pipeline_lora


def read_config(source: Source) -> AdapterConfig:
    """The configuration of an adapter. Raises as `parse_config` and, for a LoRA of diffusers, `parts_of`."""
    if is_pipeline_lora(source):
        return read_pipeline_lora(source).config
    data = source.side_file(ADAPTER_CONFIG, MAX_CONFIG_BYTES)
    assert data is not None
    return parse_config(data, f"{show(source.name)}/{ADAPTER_CONFIG}")


def read_adapter(source: Source) -> Adapter:
    """The adapter in an open folder: every key accounted for, every shape and rank checked, no factor read.

    Raises RefusedFileError E0820 to E0824 and IncompatibleError E0340, E0341 (not an adapter of low rank), E0343 (a
    rank that depends on what the file does not say).
    """
    if is_pipeline_lora(source):
        return read_pipeline_lora(source)
    config = read_config(source)
    where = show(source.name)
    if not config.is_low_rank and config.peft_type != TOKENS:
        raise IncompatibleError(
            "E0341",
            f"this is a {show(config.peft_type)} adapter: its updates are no products of two factors",
            where=where,
            hint="--fold makes full weights of it (with --base); or convert it: peft.convert_to_lora"
            if config.peft_type in FOLDABLE
            else "only a soup of weights can be made",
        )
    keys = sorted_keys(source.header, where)
    if strange := unasked(keys.tensors, config):
        raise no_place([keys.tensors[name] for name in strange], where)
    check_floats(source.header, where)
    wrapped = parameters(keys.factors, config)
    updates = {
        module: _update(module, found, source, config, wrapped.get(module, ()))
        for module, found in keys.factors.items()
    }
    if not updates and not keys.tensors and not keys.rows:
        raise RefusedFileError(
            "E0822", "it holds no update at all", where=where, hint="fetch or save it again"
        )
    rows = {name: (indices(name, key, source, config), key) for name, key in keys.rows.items()}
    return Adapter(source.name, source, config, updates, keys.tensors, rows, keys.beneath)


def read_pipeline_lora(source: CheckpointSource) -> Adapter:
    """A LoRA of diffusers as an adapter whose modules are called as in a pipeline: `unet/…`. Raises as `parts_of`."""
    where = show(source.name)
    parts = parts_of(source.header, source.metadata, where, os.path.join(source.folder, source.files[0].name))
    check_floats(source.header, where)
    updates = {
        part.name(module): replace(
            _update(module, keys, source, part.config, ()), module=part.name(module), stem=part.stem(module)
        )
        for part in parts
        for module, keys in part.modules.items()
    }
    return Adapter(source.name, source, joined(parts, where), updates, {}, {}, {}, of_pipeline=True)


def _update(
    module: str, keys: FactorKeys, source: Source, config: AdapterConfig, wrapped: tuple[str, ...]
) -> LowRank:
    a, b = source.header[keys.a].shape, source.header[keys.b].shape
    where = f"{show(source.name)}: {show(module)}"
    if len(a) < 2 or len(b) < 2 or 0 in (*a, *b):
        raise RefusedFileError(
            "E0824",
            f"its factors have the shapes {a} and {b}: parts of them that DeepSpeed or FSDP did not gather",
            where=where,
            hint="save it again with all parameters gathered",
        )
    stored = a[0]
    declared, scaling = _rank_and_scaling(module, stored, config, wrapped, where)
    experts = stored // declared if wrapped and stored % declared == 0 else 1
    rank = stored // experts
    if len(a) > 2 and rank == declared and b[1] < stored and stored % b[1] == 0:
        raise IncompatibleError(
            "E0340",
            f"this adapter cannot be mixed: it changes a convolution of {stored // b[1]} groups, which PEFT does not merge",
            where=where,
            hint="leave it out, or train it without that module",
        )
    if b[1] != stored or rank != declared or any(size != 1 for size in b[2:]):
        raise RefusedFileError(
            "E0824",
            f"its factors have the shapes {a} and {b}, and its configuration says rank {declared}",
            where=where,
            hint="the tensors and adapter_config.json are not of one adapter: fetch or save it again",
        )
    _check_grown(keys, source, rank, b[0], where)
    columns = math.prod(a[1:])
    return LowRank(module, keys, rank, b[0], columns, scaling, a, b, experts, wrapped)


def _rank_and_scaling(
    module: str, stored: int, config: AdapterConfig, wrapped: tuple[str, ...], where: str
) -> tuple[int, float]:
    """The rank and s of an update; patterns know a parameter by its own name."""
    if config.peft_type == "ADALORA":
        return stored, config.scaling(module, stored)
    found = {(rank := config.rank(name), config.scaling(name, rank)) for name in wrapped or (module,)}
    if len(found) > 1:
        raise IncompatibleError(
            "E0343",
            f"the file does not say which of {listing(list(wrapped), 3)} it changes, and their ranks or scalings differ",
            where=where,
            hint="merge this adapter into its base with the version of PEFT that wrote it",
        )
    return found.pop()


def _check_grown(keys: FactorKeys, source: Source, rank: int, rows: int, where: str) -> None:
    """Magnitudes, biases and singular values have the length that belongs to the factors."""
    wanted = {keys.e: rank, keys.bias: rows, keys.magnitude: rows}
    for key, length in wanted.items():
        if key is None:
            continue
        numel = source.header[key].numel
        if numel != length:
            raise RefusedFileError(
                "E0824",
                f"'{show(key)}' has {numel} elements, its factors need {length}",
                where=where,
                hint="the tensors are not of one adapter: fetch or save it again",
            )


def without(adapter: Adapter, tensor: str) -> Adapter:
    """The adapter without what it does to one tensor."""
    module = tensor.rpartition(".")[0]

    def kept(table: Mapping[str, T], name: str) -> dict[str, T]:
        return {key: value for key, value in table.items() if key != name}

    return replace(
        adapter,
        updates=kept(adapter.updates, module),
        tensors=kept(adapter.tensors, tensor),
        rows=kept(adapter.rows, tensor),
        beneath=kept(adapter.beneath, tensor),
    )


def untrained(adapters: Sequence[Adapter]) -> Iterator[str]:
    """Notes on adapters all of whose B are zero: they change nothing."""
    for adapter in adapters:
        used = list(adapter.updates.values())
        if used and not adapter.tensors and not any(bool(adapter.b(update).any()) for update in used):
            yield f"'{show(adapter.name)}' is untrained: every B is zero, so it adds nothing"
