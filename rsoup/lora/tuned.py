"""A fine-tune beside its base: opened, compared, the change of every tensor measured in one streaming pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from rsoup.compat.files import config_of
from rsoup.compat.tied import HEAD, is_tied
from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.family.survey import TensorRecord, comparable, survey
from rsoup.lora.changes import Change, blocks_of_experts, dropped, kind_of, respelled
from rsoup.prepare import by_commit, compared, open_all
from rsoup.progress import Meter, OnProgress
from rsoup.recipe import CARE_DISTANCE, Recipe
from rsoup.remote.transfer import Fetch
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.protocols import Source
from rsoup.tensors import Header

_ROOTS = ("model", "transformer")  # what transformers calls the model below a head; also by the model's type
_HEADED = ("CausalLM", "LMHeadModel", "ConditionalGeneration", "DoubleHeadsModel")
_OTHER_HEADS = ("ForMaskedLM", "ForPreTraining")  # tied, too, but their heads have other names


@dataclass(frozen=True, slots=True)
class Tuned:
    """A fine-tune and its base under one set of names: `opened` are their folders, the base's last.

    `names` maps a tensor's name in the adapter's model to that in `tuned` and `base`; `added` are names only the
    fine-tune has. `config` is its config.json, `tied` says that its lm_head is its embeddings, stored once,
    `elsewhere` that a head of another name is.
    """

    recipe: Recipe
    tuned: Source = field(repr=False)
    base: Source = field(repr=False)
    opened: tuple[CheckpointSource, ...] = field(repr=False)
    names: Mapping[str, str] = field(repr=False)
    added: frozenset[str]
    drop: frozenset[str]
    config: Mapping[str, object] = field(repr=False)
    tied: bool
    elsewhere: bool
    notes: tuple[str, ...]

    @property
    def header(self) -> Header:
        """The fine-tune's tensors by their names in the adapter's model."""
        return {name: self.tuned.header[inner] for name, inner in self.names.items()}


@dataclass(frozen=True, slots=True)
class Moved:
    """What was measured: every tensor that changed, ‖θ − θ₀‖/‖θ₀‖ of all that is not left out, notes, bytes read."""

    changes: tuple[Change, ...]
    distance: float | None
    notes: tuple[str, ...]
    nbytes: int


@contextmanager
def opened(recipe: Recipe, fetch: Fetch = "cache") -> Iterator[Tuned]:
    """The one fine-tune of `recipe` and its base, open and compared as for a soup; no weights are read.

    Addresses are by their commit from here on.

    Raises UsageError E0209, AccessError, RefusedFileError, and IncompatibleError E0301, E0302 as they come.
    """
    recipe = by_commit(recipe)
    assert recipe.base is not None
    with ExitStack() as stack:
        places = [*recipe.checkpoints(), ("base", recipe.base)]
        folders = open_all(recipe, places, recipe.allow, stack, fetch=fetch)
        added = _added(folders[0], folders[1])
        known = replace(recipe, rank=None, max_error=None, drop=(*recipe.drop, *map(_literally, added)))
        (tuned, base), notes = compared(known, folders, recipe.allow)
        config = config_of(tuned) or {}
        twice = HEAD in tuned.header and _says_tied(config)
        names = {
            _own_name(tuned, name, config): name for name in tuned.header if not (twice and name == HEAD)
        }
        yield Tuned(
            recipe=recipe,
            tuned=tuned,
            base=base,
            opened=tuple(folders),
            names=names,
            added=frozenset(name for name in names if names[name] in added),
            drop=dropped(recipe.drop, {**{name: name for name in base.header}, **names}),
            config=config,
            tied=_is_tied(tuned, config, _HEADED) and (twice or HEAD not in tuned.header),
            elsewhere=_is_tied(tuned, config, _OTHER_HEADS),
            notes=tuple(notes),
        )


def _added(tuned: Source, base: Source) -> list[str]:
    """Tensors the fine-tune has beyond its base, where their names agree otherwise."""
    shared = tuned.header.keys() & base.header.keys()
    if 2 * len(shared) < len(base.header):
        return []
    return [name for name in tuned.header if name not in base.header]


def _literally(name: str) -> str:
    """A glob that matches this name alone."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in name)


def _is_tied(tuned: Source, config: Mapping[str, object], endings: tuple[str, ...]) -> bool:
    """Whether a model of one of these kinds has its embeddings for a head: others have no head to tie."""
    names = config.get("architectures")
    kinds = [str(name) for name in names] if isinstance(names, list) else []
    return any(kind.endswith(endings) for kind in kinds) and is_tied(tuned)


def _says_tied(config: Mapping[str, object]) -> bool:
    text = config.get("text_config")
    parts = [config, text if isinstance(text, dict) else {}]
    return any(part.get("tie_word_embeddings") is True for part in parts)


def _own_name(tuned: Source, name: str, config: Mapping[str, object]) -> str:
    """A tensor's name in the model that the adapter is loaded into.

    It is the base's (Mixtral's routers have another one there); but a base saved without its head lacks the name of what is below the head, and there the
    fine-tune's is the whole one.
    """
    found = getattr(tuned, "inside", lambda _: None)(name)
    own = found[1] if found is not None else name
    name = respelled(name) if name.endswith(".block_sparse_moe.gate.weight") else name
    prefix = own[: -len(name) - 1] if own.endswith(f".{name}") else None
    return own if prefix in (*_ROOTS, str(config.get("model_type"))) else name


def moved(found: Tuned, *, threads: int | None = None, progress: OnProgress | None = None) -> Moved:
    """Every change, from one pass over both checkpoints.

    Raises IncompatibleError E0304 (a changed tensor is not finite), E0306 (the two are strangers).
    """
    for source in found.opened:
        source.check_sums()
    both = [found.tuned, found.base]
    measured, _ = comparable([source.header for source in both])
    outer = {inner: name for name, inner in found.names.items()}
    wanted = [name for name in measured if name in outer]
    nbytes = sum(source.header[name].nbytes for source in both for name in wanted)
    records = survey(both, wanted, threads=threads, progress=Meter("comparing", nbytes, progress).add)
    mixtures = blocks_of_experts(found.names)
    changes, notes = [], []
    below = []
    for record in records:
        if not record.changed or not record.changed[0]:
            continue
        if any(record.rounding):
            below.append(outer[record.name])
            continue
        changes.append(_change(found, outer[record.name], record, mixtures))
    if below:
        notes.append(
            f"{len(below)} tensors differ from the base by the rounding of their dtype alone and count as unchanged: "
            f"{listing(below, 3)}"
        )
    known = found.tuned.header
    changes += [Change(name, found.names[name], known[found.names[name]], "new", None) for name in found.names if name in found.added]  # fmt: skip
    kept = [record for record in records if outer[record.name] not in found.drop and record.products]
    distance = _distance(kept)
    notes += _check_strangers(found.recipe, distance)
    return Moved(tuple(changes), distance, tuple(notes), nbytes)


def _change(found: Tuned, name: str, record: TensorRecord, mixtures: frozenset[str]) -> Change:
    spec = found.tuned.header[record.name]
    if any(record.nonfinite) and name not in found.drop:
        side = "base" if record.nonfinite[-1] else found.tuned.name
        raise IncompatibleError(
            "E0304",
            f"tensor '{show(name)}' of '{show(side)}' is NaN or infinite in {max(record.nonfinite)} of its elements",
            hint=f"leave it out: --drop '{show(name)}'",
        )
    norm = math.sqrt(max(0.0, record.products[0])) if record.products else None
    return Change(name, record.name, spec, kind_of(name, spec, mixtures), norm if norm is None or math.isfinite(norm) else None)  # fmt: skip


def _distance(records: Sequence[TensorRecord]) -> float | None:
    """‖θ − θ₀‖/‖θ₀‖; None where the base is zero."""
    apart = math.fsum(record.products[0] for record in records)
    norm = math.fsum(record.products[2] for record in records)
    return math.sqrt(apart / norm) if norm > 0 and math.isfinite(apart / norm) else None


def _check_strangers(recipe: Recipe, distance: float | None) -> list[str]:
    """Notes on a far fine-tune. Raises IncompatibleError E0306 beyond the recipe's limit, as `merge` does."""
    if distance is None or distance <= CARE_DISTANCE:
        return []
    name = show(recipe.names[0])
    if distance > recipe.max_distance and "distance" not in recipe.allow:
        raise IncompatibleError(
            "E0306",
            f"the fine-tune looks unrelated to the base (farther than {recipe.max_distance:g})",
            details=(Problem(f"'{name}'", f"relative distance {distance:.3f} from the base"),),
            hint="is it the right base? If you know better: --allow distance",
        )
    return [
        f"'{name}' moved far from the base (relative distance {distance:.3f}); few ranks will not hold that"
    ]
