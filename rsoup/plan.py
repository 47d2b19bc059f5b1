"""recipe + headers → Plan: every byte of the soup's files is decided here, and none is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rsoup import layout, methods
from rsoup.buffers import choose
from rsoup.errors import UsageError, listing, show
from rsoup.gram import Gram
from rsoup.layout import FileFormat, OutputFile
from rsoup.methods import METHODS, Term, terms
from rsoup.recipe import Recipe
from rsoup.storage.protocols import Source
from rsoup.storage.views import lent, origin
from rsoup.tensors import DTYPES, Header, TensorSpec, widest

ARITHMETIC = "rsoup-arith/1"
BLOCK_ELEMENTS = 1 << 20
BLOCK_TENSORS = 256


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """What becomes of one tensor: mixed from `terms`, or its bytes copied from checkpoint `copy_from`.

    `read` are the checkpoints that are read for it, the base at most as the last, where `measured` says
    that the distances from the base are taken on the way. `alike` are checkpoints known to hold the very bytes that are copied, without being read again.
    """

    name: str
    spec: TensorSpec
    terms: tuple[Term, ...]
    copy_from: int | None = None
    measured: bool = False
    alike: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Elements [start, stop) of the tensor `tensors[tensor]` of a plan."""

    tensor: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """A unit of work: a run of at most about a million elements, or many small tensors together."""

    index: int
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything decided, nothing done. `checkpoints` names the sources in order, the base as the last."""

    recipe: Recipe
    checkpoints: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    base: int | None
    tensors: tuple[TensorPlan, ...]
    files: tuple[OutputFile, ...]
    index_files: tuple[tuple[str, bytes], ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    block_elements: int = BLOCK_ELEMENTS

    @property
    def header(self) -> Header:
        """The soup's tensors by name."""
        return {tensor.name: tensor.spec for tensor in self.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of all weight files of the soup."""
        return sum(file.nbytes for file in self.files)

    def read_nbytes(self, headers: Sequence[Header]) -> int:
        """Bytes of the checkpoints that will be read."""
        return sum(headers[i][tensor.name].nbytes for tensor in self.tensors for i in self.readers(tensor))

    def needs_gram(self, tensor: TensorPlan) -> bool:
        """Whether a measuring pass must read this tensor: where one ingredient has all of λ, there is no angle."""
        return tensor.measured and sum(share != 0 for share in self.recipe.mix_for(tensor.name)) > 1

    def readers(self, tensor: TensorPlan) -> tuple[int, ...]:
        """The checkpoints that are read for this tensor, in order of use; the base last where measured."""
        used = [term.checkpoint for term in tensor.terms] if tensor.copy_from is None else [tensor.copy_from]
        if tensor.measured and self.base is not None and self.base not in used:
            used.append(self.base)
        return tuple(used)

    def blocks(self) -> Iterator[Block]:
        """The blocks, in the order of the soup's bytes; together they cover each element exactly once."""
        index = 0
        waiting: list[Run] = []
        waiting_elements = 0
        for number, tensor in enumerate(self.tensors):
            whole = tensor.spec.dtype.bits % 8 != 0
            step = max(tensor.spec.numel, 1) if whole else self.block_elements
            for start in range(0, tensor.spec.numel, step):
                run = Run(number, start, min(start + step, tensor.spec.numel))
                waiting.append(run)
                waiting_elements += run.stop - run.start
                if waiting_elements >= self.block_elements or len(waiting) == BLOCK_TENSORS:
                    yield Block(index, tuple(waiting))
                    index, waiting, waiting_elements = index + 1, [], 0
        if waiting:
            yield Block(index, tuple(waiting))

    def sha256(self, identities: Sequence[str]) -> str:
        """What must be equal for a killed run to be taken up again: recipe, layout and inputs as they were."""
        digest = hashlib.sha256()
        for part in (ARITHMETIC, self.recipe.sha256(), repr(self.block_elements), *identities):
            digest.update(part.encode() + b"\0")
        for file in self.files:
            digest.update(file.name.encode("utf-8", "surrogateescape") + b"\0")
            for _, piece in file.pieces:
                digest.update(piece)
        return digest.hexdigest()


def make(
    recipe: Recipe,
    sources: Sequence[Source],
    base: Source | None,
    *,
    single_file: str | None = None,
    file_format: FileFormat = "safetensors",
) -> Plan:
    """The plan of `recipe` over open checkpoints: `sources` in the order of the recipe, groups flattened.

    `single_file` is the name of the one output file where the user named a file, `file_format` how weights are
    stored (safetensors, torch). The headers must have been compared. Raises UsageError E0209 (a rule or --drop that matches nothing) and IncompatibleError
    E0303 (integer buffers that differ).
    """
    if METHODS[recipe.method].adapters_only:
        raise UsageError(
            "E0211", f"the method {recipe.method} is for adapters", hint="--method linear mixes full weights"
        )
    groups = recipe.groups()
    everything = [*sources, *([base] if base is not None else [])]
    reference = base if base is not None else sources[0]
    dropped = _dropped(recipe, everything)
    names = [name for name in reference.header if name not in dropped]
    _check_rules(recipe, names)
    base_index = None if base is None else len(sources)
    notes: list[str] = []
    plans = {
        name: _tensor_plan(name, recipe, groups, base_index, everything, None)
        for name in names
        if _is_float(reference.header[name])
    }
    others = [name for name in names if name not in plans]
    choices, more = choose(recipe, groups, base_index, everything, others)
    notes += more
    for name, choice in choices.items():
        spec = everything[choice.checkpoint].header[name]
        plans[name] = TensorPlan(name, spec, (), copy_from=choice.checkpoint, alike=choice.alike)
    notes += _dtype_notes(recipe, plans, everything)
    header = {name: plan.spec for name, plan in plans.items()}
    named = layout.renamed(reference.files, file_format, keep_variant=recipe.variant is not None)
    if single_file is not None:
        placed = layout.one_file(single_file, reference.files, header)
    elif recipe.max_shard_bytes is not None:
        placed = layout.shards(named, header, recipe.max_shard_bytes)
    else:
        placed = layout.kept(named, header)
    files = tuple(layout.output_file(file, header, recipe.sha256(), file_format) for file in placed)
    ordered = tuple(plans[name] for file in files for name in file.tensors)
    return Plan(
        recipe=recipe,
        checkpoints=tuple(source.name for source in everything),
        groups=groups,
        base=base_index,
        tensors=ordered,
        files=files,
        index_files=tuple(layout.index_files(files, header)) if single_file is None else (),
        dropped=tuple(sorted(dropped)),
        notes=tuple(notes),
    )


def with_gram(plan: Plan, sources: Sequence[Source], grams: Mapping[str, Gram]) -> Plan:
    """The plan with the coefficients of a method that needed the Gram matrices (name of tensor → groups' Gram)."""
    tensors = tuple(
        _tensor_plan(tensor.name, plan.recipe, plan.groups, plan.base, sources, grams[tensor.name])
        if tensor.name in grams
        else tensor
        for tensor in plan.tensors
    )
    return replace(plan, tensors=tensors)


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype.kind == "float"


def _dropped(recipe: Recipe, sources: Sequence[Source]) -> frozenset[str]:
    from rsoup.compat.headers import dropped

    matches = dropped([source.header for source in sources], recipe.drop)
    if useless := [glob for glob, names in matches.items() if not names]:
        raise UsageError(
            "E0209",
            f"--drop {listing(useless)} matches no tensor",
            hint="rsoup merge … --dry-run --json lists the names",
        )
    return frozenset(name for names in matches.values() for name in names)


def _check_rules(recipe: Recipe, names: Sequence[str]) -> None:
    for rule in recipe.per_tensor:
        if not any(rule.applies_to(name) for name in names):
            raise UsageError(
                "E0209",
                f"per_tensor: {rule} matches no tensor",
                hint=f"the names look like '{show(names[0]) if names else ''}'",
            )


def _tensor_plan(
    name: str,
    recipe: Recipe,
    groups: tuple[tuple[int, ...], ...],
    base: int | None,
    sources: Sequence[Source],
    gram: Gram | None,
) -> TensorPlan:
    method = METHODS[recipe.method]
    mix = recipe.mix_for(name)
    if method.needs_gram and gram is None:
        coefficients = methods.linear(mix, None)
    else:
        coefficients = method.coefficients(mix, gram)
    summands = terms(coefficients, groups, base, recipe.scale)
    specs = [sources[term.checkpoint].header[name] for term in summands]
    fine_tuned = [
        spec for term, spec in zip(summands, specs, strict=True) if term.checkpoint != base
    ] or specs
    dtype = DTYPES[recipe.dtype] if recipe.dtype else widest([spec.stored for spec in fine_tuned])
    measured = base is not None and name not in lent(sources[base])
    if base is not None and measured and (alike := _one_origin(name, sources)):
        return TensorPlan(
            name=name,
            spec=TensorSpec(dtype, sources[base].header[name].shape),
            terms=(Term(base, 1.0),),
            copy_from=base if specs[0].dtype == dtype else None,
            measured=True,
            alike=alike,
        )
    one = summands[0] if len(summands) == 1 and summands[0].coefficient == 1.0 else None
    return TensorPlan(
        name=name,
        spec=TensorSpec(dtype, sources[0].header[name].shape),
        terms=summands,
        copy_from=one.checkpoint if one is not None and specs[0].dtype == dtype else None,
        measured=measured,
    )


def _one_origin(name: str, sources: Sequence[Source]) -> tuple[int, ...]:
    """The ingredients, if what they have under this name are the base's very bytes: adapters that leave it alone."""
    *fine_tuned, base = sources
    where = origin(base, name)
    same = all(origin(source, name) == where for source in fine_tuned)
    return tuple(range(len(fine_tuned))) if same else ()


def _dtype_notes(recipe: Recipe, plans: Mapping[str, TensorPlan], sources: Sequence[Source]) -> list[str]:
    if recipe.dtype:
        return []
    mixed: dict[str, int] = {}
    for name, plan in plans.items():
        kinds = sorted({sources[term.checkpoint].header[name].stored.name for term in plan.terms})
        if len(kinds) > 1:
            key = f"stored as {' and '.join(kinds)}: the soup gets {plan.spec.dtype.name}"
            mixed[key] = mixed.get(key, 0) + 1
    return [f"{count} tensors are {text}" for text, count in mixed.items()]
