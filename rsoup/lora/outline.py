"""Design + ranks → Outline: every tensor of the adapter's file that will be written, and how each is made. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from rsoup.lora.adapter import LowRank
from rsoup.lora.design import Design, Module, TokenRows, Whole
from rsoup.lora.keys import PREFIX
from rsoup.tensors import DTYPES, DType, Header, TensorSpec, widest


@dataclass(frozen=True, slots=True)
class ModuleOut:
    """How a module is written: at which rank, under which keys, in which dtype.

    `dora` and `biased` are of the whole file: PEFT has one switch for all modules.
    """

    module: Module
    rank: int
    exact: bool
    dora: bool
    biased: bool
    dtype: DType

    @property
    def stem(self) -> str:
        """What the keys of the module begin with."""
        return self.module.like.stem or f"{PREFIX}{self.module.name}."

    @property
    def a_key(self) -> str:
        """The key of A."""
        return self.stem + ("lora_embedding_A" if self.module.like.keys.embedding else "lora_A.weight")

    @property
    def b_key(self) -> str:
        """The key of B."""
        return self.stem + ("lora_embedding_B" if self.module.like.keys.embedding else "lora_B.weight")

    def header(self) -> dict[str, TensorSpec]:
        """The module's tensors."""
        like = self.module.like
        wide = self.rank * like.experts
        found = {
            self.a_key: TensorSpec(self.dtype, (wide, *like.a_shape[1:])),
            self.b_key: TensorSpec(self.dtype, (like.rows, wide, *like.b_shape[2:])),
        }
        if self.dora:
            conv = len(like.a_shape) - 2
            shape = (1, like.rows, *[1] * conv) if conv else (like.rows,)
            found[f"{self.stem}lora_magnitude_vector"] = TensorSpec(self.dtype, shape)
        if self.biased:
            found[f"{self.stem}lora_B.bias"] = TensorSpec(self.dtype, (like.rows,))
        return found


@dataclass(frozen=True, slots=True)
class Outline:
    """The file: its header, the modules by name, the key of every whole tensor and of every set of rows."""

    design: Design = field(repr=False)
    modules: Mapping[str, ModuleOut]
    wholes: Mapping[str, Whole]
    rows: Mapping[str, TokenRows]
    header: Header

    @property
    def ranks(self) -> dict[str, int]:
        """Module → rank as it is written."""
        return {name: out.rank for name, out in self.modules.items()}


def outline(design: Design, ranks: Mapping[str, int], stacked: Mapping[str, int]) -> Outline:
    """The tensors of the soup's file. Factors are stored in the widest dtype among those of their shares."""
    dora = any(module.dora for module in design.modules)
    biased = any(s.update.keys.bias for module in design.modules for s in module.shares)
    modules = {
        module.name: ModuleOut(
            module=module,
            rank=ranks[module.name],
            exact=ranks[module.name] == stacked[module.name] and not _began(design, module),
            dora=dora,
            biased=biased,
            dtype=_dtype(design, [(s.adapter, s.update) for s in module.shares]),
        )
        for module in design.modules
    }
    wholes = {_whole_key(whole, modules): whole for whole in design.wholes}
    rows = {
        f"{PREFIX}{r.name.removesuffix('.weight')}.token_adapter.trainable_tokens_delta": r
        for r in design.rows
    }
    header = {key: spec for out in modules.values() for key, spec in out.header().items()}
    header |= {key: _whole_spec(design, whole) for key, whole in wholes.items()}
    header |= {key: _rows_spec(design, found) for key, found in rows.items()}
    return Outline(design, modules, wholes, rows, dict(sorted(header.items())))


def _began(design: Design, module: Module) -> bool:
    return any(design.began(share) is not None for share in module.shares)


def _whole_key(whole: Whole, modules: Collection[str]) -> str:
    """The key of a tensor that is stored whole: below the update of its module where there is one, else the files'."""
    module, _, leaf = whole.name.rpartition(".")
    return f"{PREFIX}{module}.base_layer.{leaf}" if module in modules else whole.terms[0][1]


def _dtype(design: Design, shares: Sequence[tuple[int, LowRank]]) -> DType:
    if design.recipe.dtype:
        return DTYPES[design.recipe.dtype]
    keys = [(i, key) for i, update in shares for key in (update.keys.a, update.keys.b)]
    return _storable(widest([design.adapters[i].spec(key).dtype for i, key in keys]))


def _storable(dtype: DType) -> DType:
    """Factors in 8 bits are for storing what was trained; a sum of them needs more."""
    return DTYPES["BF16"] if dtype.bits < 16 else dtype


def _whole_spec(design: Design, whole: Whole) -> TensorSpec:
    specs = [design.adapters[i].spec(key) for i, key, _ in whole.terms]
    dtype = DTYPES[design.recipe.dtype] if design.recipe.dtype else widest([s.dtype for s in specs])
    return TensorSpec(dtype, specs[0].shape)


def _rows_spec(design: Design, rows: TokenRows) -> TensorSpec:
    found = [
        design.adapters[i].spec(design.adapters[i].rows[rows.name][1])
        for terms in rows.terms
        for i, _, _ in terms
    ]
    dtype = DTYPES[design.recipe.dtype] if design.recipe.dtype else widest([s.dtype for s in found])
    return TensorSpec(dtype, (len(rows.indices), found[0].shape[1]))
