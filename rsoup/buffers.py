"""Tensors that are never averaged: integers, booleans, packed numbers. Equal or not, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.errors import IncompatibleError, Problem, RefusedFileError, listing, show
from rsoup.recipe import Recipe
from rsoup.storage.protocols import Source

_CHUNK_BYTES = 1 << 20


def first_difference(tensor: str, one: Source, other: Source) -> str | None:
    """Where `tensor` differs between two checkpoints, in words, or None where both hold the same bytes.

    Raises RefusedFileError E0814 for a boolean whose byte is neither 0 nor 1.
    """
    spec, other_spec = one.header[tensor], other.header[tensor]
    names = f"'{show(one.name)}' and '{show(other.name)}'"
    if spec != other_spec:
        return f"{spec} and {other_spec} in {names}"
    ours, theirs = (memoryview(bytearray(min(_CHUNK_BYTES, spec.nbytes))) for _ in range(2))
    for start in range(0, spec.nbytes, _CHUNK_BYTES):
        size = min(_CHUNK_BYTES, spec.nbytes - start)
        a, b = ours[:size], theirs[:size]
        one.read(tensor, start, a)
        other.read(tensor, start, b)
        if spec.dtype.kind == "bool" and bytes(a).translate(None, b"\0\1"):
            raise RefusedFileError(
                "E0814",
                f"the boolean tensor '{show(tensor)}' of '{show(one.name)}' holds bytes other than 0 and 1",
            )
        if a != b:
            at = next(i for i in range(size) if a[i] != b[i])
            return f"element {(start + at) * 8 // spec.dtype.bits} differs between {names}"
    return None


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose bytes are copied, and which checkpoints are known to hold the same."""

    checkpoint: int
    alike: tuple[int, ...]


def choose(
    recipe: Recipe,
    groups: Sequence[Sequence[int]],
    base: int | None,
    sources: Sequence[Source],
    names: Sequence[str],
) -> tuple[dict[str, Choice], list[str]]:
    """(name → whose bytes to copy, notes) for tensors that have no mean; equal ones are copied.

    Different ones come from the ingredient of `--buffers-from`; BatchNorm's counter from the one with the
    largest λ. Raises IncompatibleError E0303 with all others that differ.
    """
    choices: dict[str, Choice] = {}
    notes: list[str] = []
    problems: list[Problem] = []
    taken: dict[tuple[int, bool], list[str]] = {}
    for name in names:
        mix = recipe.mix_for(name)
        used = [i for share, group in zip(mix, groups, strict=True) if share != 0 for i in group]
        used = used or [base if base is not None else 0]
        compared = [*used, *([base] if base is not None else [])]
        differences = {i: first_difference(name, sources[used[0]], sources[i]) for i in compared}
        difference = next((differences[i] for i in used if differences[i]), None)
        if difference is None:
            choices[name] = Choice(used[0], tuple(i for i in compared if not differences[i]))
            continue
        if recipe.buffers_from is not None:
            chosen = _named(recipe, groups, base)
            taken.setdefault((chosen, False), []).append(name)
        elif name.endswith("num_batches_tracked"):
            chosen = groups[max(range(len(mix)), key=lambda i: mix[i])][0]
            taken.setdefault((chosen, True), []).append(name)
        else:
            problems.append(Problem(f"'{show(name)}' ({sources[used[0]].header[name]})", difference))
            continue
        first_difference(name, sources[chosen], sources[chosen])  # what is taken must be sound, too
        choices[name] = Choice(chosen, ())
    if problems:
        raise IncompatibleError(
            "E0303",
            f"{len(problems)} tensors that cannot be averaged differ between the checkpoints",
            details=tuple(problems[:20]),
            hint="integers, booleans, complex and packed numbers are not averaged; take them from one ingredient: --buffers-from NAME",
        )
    for (chosen, counter), found in taken.items():
        which = ", the first with the largest λ" if counter else ""
        what = "differ and are" if len(found) > 1 else "differs and is"
        notes.append(f"{listing(found, 2)} {what} taken from '{show(sources[chosen].name)}'{which}")
    return choices, notes


def _named(recipe: Recipe, groups: Sequence[Sequence[int]], base: int | None) -> int:
    if recipe.buffers_from == "base" and base is not None:
        return base
    return groups[recipe.names.index(recipe.buffers_from or "")][0]
