"""Where an adapter's updates lie in the tensors of its base: which tensor, and which way round. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from rsoup.compat.conv1d import MODELS, is_named_so
from rsoup.errors import IncompatibleError, Problem, show
from rsoup.lora.adapter import Adapter, LowRank
from rsoup.lora.config import AdapterConfig
from rsoup.tensors import Header, TensorSpec

_SHOWN = 5
_PARTS = 4


@dataclass(frozen=True, slots=True)
class Placed:
    """An update in a tensor it changes, seen as matrices of `rows` × `columns` one below the other, one per expert.

    `transposed`: the stored matrix is (B·A)ᵀ: an embedding, a Conv1D of GPT-2, experts stored inputs first.
    The first matrix is that of expert `expert`, and begins at row `first` of its B·A.
    """

    update: LowRank
    tensor: str
    rows: int
    columns: int
    transposed: bool
    expert: int = 0
    first: int = 0


def placed(
    adapter: Adapter, base: Header, names: Mapping[str, str], model_type: object = None
) -> dict[str, Placed]:
    """Base tensor → the update that changes it, for every update of one matrix; `names` maps adapter's to base's.

    `model_type` is what the base's configuration says: it tells which square matrices are stored inputs first.

    Raises IncompatibleError E0342 with every update that fits no tensor of the base, E0343 where it is not certain
    which tensor an update is of.
    """
    found: dict[str, Placed] = {}
    wrong: list[Problem] = []
    for update in adapter.updates.values():
        if update.experts > 1:
            continue
        tensor = _tensor(update, base, names)
        spec = base.get(tensor) if tensor is not None else None
        if tensor is None or spec is None:
            wrong.append(Problem(show(update.module), "the base has no such tensor"))
            continue
        ways = [way for way in (False, True) if _fits(update, spec, transposed=way)]
        if not ways:
            wrong.append(
                Problem(show(tensor), f"the base has {spec}, the update is {update.rows} × {update.columns}")
            )
            continue
        if tensor in found:
            raise uncertain(adapter.name, f"two updates may be of '{show(tensor)}'")
        way = ways[0] if len(ways) == 1 else _is_transposed(update, adapter.config, model_type)
        found[tensor] = Placed(update, tensor, *_matrix(spec), way)
    if wrong:
        raise does_not_fit(adapter.name, wrong, len(adapter.updates))
    return found


def _is_transposed(update: LowRank, config: AdapterConfig, model_type: object) -> bool:
    """Whether a square matrix is stored inputs first. PEFT's `fan_in_fan_out` is that of the module it wrapped last."""
    if update.keys.embedding:
        return True
    return is_named_so(update.module) if model_type in MODELS else config.fan_in_fan_out


def _matrix(spec: TensorSpec) -> tuple[int, int]:
    """(rows, columns) as which a tensor is seen."""
    return (spec.shape[0], math.prod(spec.shape[1:])) if spec.shape else (0, 0)


def _fits(update: LowRank, spec: TensorSpec, *, transposed: bool) -> bool:
    wanted = (update.columns, update.rows) if transposed else (update.rows, update.columns)
    return _matrix(spec) == wanted


def _tensor(update: LowRank, base: Header, names: Mapping[str, str]) -> str | None:
    """The base's tensor an update changes: its module's weight, or of the parameters it may be of the one that fits."""
    own = names.get(update.tensor, update.tensor if update.tensor in base else None)
    if own in base:
        return own
    fitting = [
        tensor
        for tensor in (parameter_in(name, names) for name in update.parameters)
        if tensor in base and any(_fits(update, base[tensor], transposed=way) for way in (False, True))
    ]
    return fitting[0] if len(fitting) == 1 else own


def parameter_in(parameter: str, names: Mapping[str, str]) -> str:
    """The base's name of a parameter, whose module `names` maps as `M.`."""
    owner, _, leaf = parameter.rpartition(".")
    return names.get(f"{owner}.", f"{owner}.") + leaf


def names_in(base: Header, wanted: Iterable[str]) -> dict[str, str]:
    """Adapter's tensor name → base's: as they are, or by the one prefix that all of them lack or have too many.

    Names for which there is none are left out. A module is asked for as `M.` and found where `M.…` is.
    Mixtral's experts and router are known by both of their names.
    """
    asked = list(wanted)
    known = {*base, *_modules(base)}
    ways = [("", "")]
    parts = asked[0].split(".")[:-1] if asked else []
    heads = ["".join(f"{part}." for part in parts[:count]) for count in range(min(len(parts), _PARTS) + 1)]
    first = sorted({name.split(".")[0] + "." for name in base if "." in name})
    second = sorted({".".join(name.split(".")[:2]) + "." for name in base if name.count(".") > 1})
    ways += [(old, new) for old in heads for new in ("", *first, *second) if (old, new) != ("", "")]
    best: dict[str, str] = {}
    for old, new in ways:
        found = {name: new + name[len(old) :] for name in asked if name.startswith(old)}
        found = {name: _respelled(seen, known) for name, seen in found.items()}
        found = {name: seen for name, seen in found.items() if seen in known}
        if len(found) > len(best):
            best = found
    return best


def _modules(base: Header) -> set[str]:
    """Every module that has a tensor, or a module that has one, as `M.`."""
    found: set[str] = set()
    for name in base:
        module = name.rpartition(".")[0]
        while module and f"{module}." not in found:
            found.add(f"{module}.")
            module = module.rpartition(".")[0]
    return found


def _respelled(name: str, known: Set[str]) -> str:
    """A name as a checkpoint has it that transformers 5 renames as it reads it."""
    spellings = (
        name,
        name.replace(".mlp.", ".block_sparse_moe.", 1),
        re.sub(r"^(text_encoder[^/]*/)", r"\1text_model.", name),
    )
    return next((spelling for spelling in spellings if spelling in known), name)


def uncertain(name: str, what: str) -> IncompatibleError:
    """The error of an adapter whose file does not say what only its writer knew."""
    return IncompatibleError(
        "E0343",
        what,
        where=show(name),
        hint="merge this adapter into its base with the version of PEFT that wrote it",
    )


def does_not_fit(name: str, wrong: Sequence[Problem], of: int) -> IncompatibleError:
    """The error of an adapter whose updates do not all fit the base."""
    more = f" (the first {_SHOWN} shown)" if len(wrong) > _SHOWN else ""
    return IncompatibleError(
        "E0342",
        f"'{show(name)}' does not fit this base: {len(wrong)} of its {of} updates have no place in it{more}",
        details=tuple(wrong[:_SHOWN]),
        hint="is it the model the adapter was trained on, in the same size and layout?",
    )
