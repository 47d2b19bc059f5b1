"""What a fine-tune changed, and what an adapter can make of it: two factors, a whole tensor, or nothing. Pure."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from rsoup.compat.conv1d import MODELS, is_named_so
from rsoup.compat.tied import EMBEDDING
from rsoup.errors import IncompatibleError, Problem, UsageError, listing, show
from rsoup.tensors import Header, TensorSpec

Kind = Literal["linear", "embedding", "vector", "bias", "convolution", "router", "parameter", "new", "other"]

SHOWN: Final = 20
_EMBEDDING: Final = re.compile(
    r"(?:^|_)(?:emb|embed|embeds|embedding|embeddings)(?:_(?:in|tokens|positions|tokens_per_layer))?$|"
    r"^(?:wte|wpe|shared|relative_attention_bias)$"
)
_WORDS: Final[Mapping[Kind, str]] = {
    "embedding": "an embedding", "vector": "a norm or another vector", "bias": "a bias",
    "convolution": "a convolution", "router": "a router of experts", "parameter": "a parameter of no linear module",
    "new": "the base has no such tensor", "other": "no floats", "linear": "a linear module",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """A tensor that differs: its name in the adapter's model and in the sources, ‖θ − θ₀‖ (None where there is none)."""

    name: str
    inner: str
    spec: TensorSpec
    kind: Kind
    norm: float | None

    @property
    def module(self) -> str:
        """The module it belongs to."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Parts:
    """What becomes of every change: `factors` get two factors, the others are left out, or are parts of `wholes`.

    `wholes` are names of tensors stored whole, the unchanged ones of a saved module among them; `saved` the modules
    that `modules_to_save` names, `biases` the trained biases of other modules.
    """

    factors: tuple[Change, ...]
    left_out: tuple[Change, ...] = ()
    wholes: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    tied: bool = False


def blocks_of_experts(names: Iterable[str]) -> frozenset[str]:
    """The modules that have experts: a matrix beside these that is called gate or router is no linear module."""
    found = {name.partition(".experts.")[0] for name in names if ".experts." in name}
    return frozenset((*found, *map(respelled, found)))


def respelled(name: str) -> str:
    """Mixtral's name of a block of experts in transformers 5, which keeps the old one in checkpoints alone."""
    return name.replace(".block_sparse_moe", ".mlp", 1)


def kind_of(name: str, spec: TensorSpec, mixtures: Collection[str] = ()) -> Kind:
    """What a tensor is, by its name, shape and dtype; nothing else is known of a checkpoint's modules.

    `mixtures` are the modules that have experts.
    """
    module, _, leaf = name.rpartition(".")
    if spec.dtype.kind != "float":
        return "other"
    if leaf == "bias" and module:
        return "bias"
    if leaf != "weight" or not module or not spec.shape:
        return "parameter"
    if len(spec.shape) == 1:
        return "vector"
    if len(spec.shape) > 2:
        return "convolution"
    if module.rpartition(".")[0] in mixtures and module.rpartition(".")[2] in ("gate", "router"):
        return "router"
    return "embedding" if _EMBEDDING.search(module.rpartition(".")[2]) else "linear"


def parted(
    changes: Sequence[Change],
    header: Header,
    *,
    save: bool = False,
    embeddings: bool = False,
    drop: Collection[str] = (),
    tied: bool = False,
    elsewhere: bool = False,
) -> Parts:
    """What becomes of `changes`; `header` are all tensors of the fine-tune by the names in its model.

    `drop` are names that are left out, `save` keeps whole what two factors cannot hold, `embeddings` takes those for
    low-rank too; `tied`: the head is the embeddings, stored once, and called lm_head, or `elsewhere`. Raises IncompatibleError E0360 (something would be
    lost), E0361 (no linear module changed), E0363 (something cannot be kept whole), E0364 (tied embeddings).
    """
    left_out = tuple(change for change in changes if change.name in drop)
    kept = [change for change in changes if change.name not in drop]
    low_rank = ("linear", "embedding") if embeddings else ("linear",)
    factors = [change for change in kept if change.kind in low_rank]
    rest = [change for change in kept if change.kind not in low_rank]
    if rest and not save:
        raise _lost(rest, changes)
    if not factors:
        raise _nothing(changes)
    saved = list(dict.fromkeys(c.module for c in rest if c.kind != "bias"))
    low_rank_embeddings = [c.module for c in factors if c.kind == "embedding"]
    _check_shared(low_rank_embeddings, tied=tied or elsewhere)
    _check_shared(saved, tied=elsewhere)
    wholes = {module: _tensors_of(module, header, drop) for module in saved}
    for change in rest:
        if change.module in saved and change.name not in wholes[change.module]:
            raise _unkeepable(change.name, "it belongs to no module of its own")
    biases = tuple(c.name for c in rest if c.module not in saved)
    both_sides = tied and any(EMBEDDING.search(f"{module}.weight") for module in saved)
    return Parts(
        factors=tuple(change for change in factors if change.module not in saved),
        left_out=left_out,
        wholes=(*(name for names in wholes.values() for name in names), *biases),
        saved=tuple(saved),
        biases=biases,
        tied=both_sides,
    )


def _check_shared(modules: Iterable[str], *, tied: bool) -> None:
    """Raise IncompatibleError E0364 for embeddings that other modules share, so that an adapter changes one of them alone."""
    for module in modules:
        if module.rpartition(".")[2] == "shared" or (tied and EMBEDDING.search(f"{module}.weight")):
            raise IncompatibleError(
                "E0364",
                f"'{show(module)}' is shared with other modules (tied): an adapter would change it in one place alone",
                hint=f"--save-modules without --embeddings keeps an lm_head and its embeddings; else --drop '{show(module)}*', "
                "or keep full weights",
            )


def _tensors_of(module: str, header: Header, drop: Collection[str]) -> tuple[str, ...]:
    """All tensors of a module that is kept whole: it has no modules inside, and floats alone."""
    names = tuple(name for name in header if name.startswith(f"{module}.")) if module else ()
    inside = [name for name in names if "." in name[len(module) + 1 :]]
    packed = [name for name in names if header[name].dtype.kind != "float"]
    dropped = [name for name in names if name in drop]
    if not names:
        raise _unkeepable(module or "the model", "it belongs to no module of its own")
    if inside:
        raise _unkeepable(module, f"it has modules inside, such as that of '{show(inside[0])}'")
    if packed:
        raise _unkeepable(
            module, f"'{show(packed[0])}' is {header[packed[0]].dtype.name}, which no adapter holds"
        )
    if dropped:
        raise _unkeepable(module, f"--drop takes '{show(dropped[0])}' out of it")
    return names


def _unkeepable(what: str, why: str) -> IncompatibleError:
    return IncompatibleError(
        "E0363",
        f"'{show(what)}' changed and cannot be kept whole: {why}",
        hint=f"leave it out: --drop '{show(what)}*'; or keep full weights",
    )


def _lost(rest: Sequence[Change], changes: Sequence[Change]) -> IncompatibleError:
    total = norm_of(changes)
    details = tuple(Problem(f"'{show(c.name)}'", describe(c, total)) for c in rest[:SHOWN])
    more = f" (the first {SHOWN} shown)" if len(rest) > SHOWN else ""
    share = norm_of(rest) / total if total else 0.0
    return IncompatibleError(
        "E0360",
        f"{len(rest)} changed tensors are no matrices of linear modules, and two factors cannot hold them: "
        f"{share:.3g} of the update's norm would be lost{more}",
        details=details,
        hint="--save-modules keeps them whole; --drop 'GLOB' leaves them out, once you know that it does not matter",
    )


def describe(change: Change, total: float) -> str:
    """What a tensor is and how large its change, beside ‖Δ‖ of all."""
    words = _WORDS[change.kind]
    if change.norm is None:
        return words
    return f"{words}, ‖Δ‖ {change.norm:.3g}" + (f" ({change.norm / total:.2g} of all)" if total else "")


def _nothing(changes: Sequence[Change]) -> IncompatibleError:
    return IncompatibleError(
        "E0361",
        "no weight of a linear module differs from the base" + (": the two are equal" if not changes else ""),
        hint="is it the right fine-tune, and the right base?",
    )


def norm_of(changes: Iterable[Change]) -> float:
    """√Σ‖Δ‖² of those whose change has a norm."""
    return math.sqrt(math.fsum(c.norm * c.norm for c in changes if c.norm is not None))


def dropped(globs: Sequence[str], names: Mapping[str, str]) -> frozenset[str]:
    """The names (in the adapter's model) that a glob matches; `names` maps them to those in the sources, which count too.

    Raises UsageError E0209 for a glob that matches nothing.
    """
    found: set[str] = set()
    for glob in globs:
        fitting = {n for n, inner in names.items() if any(fnmatch.fnmatchcase(t, glob) for t in (n, inner))}
        if not fitting:
            raise UsageError(
                "E0209",
                f"--drop '{show(glob)}' matches no tensor",
                hint=f"the names look like '{show(next(iter(names), ''))}'",
            )
        found |= fitting
    return frozenset(found)


def fan_in_fan_out(factors: Sequence[Change], header: Header, model_type: str | None) -> bool:
    """Whether the matrices are stored inputs first, as GPT-2's Conv1D has them: `model_type` says so, else the biases.

    Raises IncompatibleError E0362 where some are and some are not: PEFT has one switch for all.
    """
    inverted = [c for c in factors if c.kind == "linear" and _is_conv1d(c, header, model_type)]
    plain = [c.name for c in factors if c.kind == "linear" and c not in inverted]
    if inverted and plain:
        raise IncompatibleError(
            "E0362",
            f"{listing([c.name for c in inverted], 2)} are stored inputs first (Conv1D) and {listing(plain, 2)} outputs "
            "first: one adapter holds one kind",
            hint=f"leave the fewer out: --drop '{show(plain[0])}'",
        )
    return bool(inverted)


def _is_conv1d(change: Change, header: Header, model_type: str | None) -> bool:
    if not is_named_so(change.module):
        return False
    bias = header.get(f"{change.module}.bias")
    if bias is not None and change.spec.shape[0] != change.spec.shape[1]:
        return bias.shape[0] == change.spec.shape[1]
    return model_type in MODELS
