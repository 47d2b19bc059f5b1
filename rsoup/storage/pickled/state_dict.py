"""Which part of a PyTorch file is the model: the one table of tensors, or the one the user names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, UsageError, listing, show
from rsoup.storage.pickled.pickle_values import TABLES, Call, add_entry
from rsoup.storage.pickled.torch_tensor import is_scalar, is_tensor

WHOLE = "."
"""The key that means the whole file."""

_SEARCH_DEPTH = 3
_NO_MODEL = re.compile(r"optim|^opt$|sched|scaler|rng|random|_extra_state$|^_metadata$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The table taken for the model, the key that leads to it, and what else the file holds."""

    table: Mapping[object, object]
    key: str
    notes: tuple[str, ...]


def choose(value: object, key: str | None, shown: str) -> Chosen:
    """The state dict in what a file holds: the one at `key`, or the only one there is.

    Raises UsageError E0215 where there is no such key or more than one candidate, RefusedFileError E0816
    where there is none.
    """
    top = as_table(value, shown)
    if top is None:
        what = "one tensor" if is_tensor(value) else "no table"
        raise _none(shown, f"the file holds {what} where a state dict should be")
    finder = _Finder(shown)
    found = finder.candidates(top)
    if key is not None and key != WHOLE and list(found) == [WHOLE] and key not in top:
        note = f"{shown}: it has no '{show(key)}' and is a state dict itself, which is read whole"
        return Chosen(top, WHOLE, (note,))
    if key is not None:
        beside = [o for o in top if isinstance(o, str) and not f"{key}.".startswith(f"{o}.")]
        also = f"; not read: {listing(beside)}" if beside and key != WHOLE else ""
        return Chosen(
            _Finder(shown).at(top, key), key, (f"{shown}: the weights are those under '{show(key)}'{also}",)
        )
    if not top:
        return Chosen(top, WHOLE, ())
    if not found:
        arrays = sum(isinstance(v, Call) and v.function.module.startswith("numpy") for v in top.values())
        also = f"; {arrays} of its entries are NumPy arrays" if arrays else ""
        raise _none(shown, f"nothing in the file is a table of names and tensors{also}")
    names = list(found)
    if len(names) > 1:
        raise UsageError(
            "E0215",
            f"several parts of the file could be the model: {listing(names, 20)}",
            where=shown,
            hint=f"name the one to mix: --key {show(names[0])}",
        )
    chosen = names[0]
    beside = [o for o in top if isinstance(o, str) and o != chosen and not chosen.startswith(f"{o}.")]
    if chosen == WHOLE:
        return Chosen(found[chosen], chosen, ())
    also = f"; not read: {listing(beside)}" if beside else ""
    return Chosen(found[chosen], chosen, (f"{shown}: the weights are those under '{show(chosen)}'{also}",))


def _none(shown: str, what: str) -> RefusedFileError:
    return RefusedFileError(
        "E0816", what, where=shown, hint="save the state dict alone: torch.save(model.state_dict(), path)"
    )


def as_table(node: object, shown: str) -> Mapping[object, object] | None:
    """The entries of a dictionary or of something like one; None for anything else."""
    if isinstance(node, dict):
        return node
    if not isinstance(node, Call) or node.function.name not in TABLES:
        return None
    if not node.args:
        return node.table or {}
    table: dict[object, object] = {}
    if node.function.name != "defaultdict" and len(node.args) == 1:  # Python 2 wrote the entries as pairs
        pairs = node.args[0]
        if isinstance(pairs, dict):
            pairs = list(pairs.items())
        if not isinstance(pairs, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            return None
        for name, value in pairs:
            add_entry(table, name, value, shown)
    for name, value in (node.table or {}).items():
        add_entry(table, name, value, shown)
    return table


def _tensors(table: Mapping[object, object]) -> int:
    return sum(map(is_tensor, table.values()))


def _has_shapes(table: Mapping[object, object]) -> bool:
    return any(is_tensor(value) and not is_scalar(value) for value in table.values())


class _Finder:
    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._met: set[int] = set()

    def _inner(self, table: Mapping[object, object]) -> Iterator[tuple[str, Mapping[object, object]]]:
        """The tables in a table, each met once: a few that hold each other could stand for billions."""
        for name, value in table.items():
            if not isinstance(name, str) or id(value) in self._met:
                continue
            inner = as_table(value, self._shown)
            if inner is not None:
                self._met.add(id(value))
                yield name, inner

    def candidates(self, top: Mapping[object, object]) -> dict[str, Mapping[object, object]]:
        """The tables made mostly of tensors, by their keys, optimizers and the like left out."""
        found = dict(self._below(top, "", _SEARCH_DEPTH))
        # A table of nothing but losses and counters is no model, unless there is no other.
        found = {key: table for key, table in found.items() if _has_shapes(table)} or found
        own = {name: value for name, value in top.items() if not found or not _NO_MODEL.search(str(name))}
        if own and _tensors(own) * 2 + (not found) > len(own):
            return {WHOLE: top, **found}
        return found

    def _below(
        self, table: Mapping[object, object], path: str, depth: int
    ) -> Iterator[tuple[str, Mapping[object, object]]]:
        if "param_groups" in table or not depth:
            return
        for name, inner in self._inner(table):
            if _NO_MODEL.search(name):
                continue
            if _tensors(inner) * 2 > len(inner):
                yield path + name, inner
            else:
                yield from self._below(inner, f"{path}{name}.", depth - 1)

    def at(self, top: Mapping[object, object], key: str) -> Mapping[object, object]:
        """The table at a key, whose parts are joined by points and may contain some."""
        found = top if key == WHOLE else self._follow(top, key)
        if found is None:
            known = [WHOLE, *self._paths(top, "", _SEARCH_DEPTH)]
            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(
                "E0215",
                f"the file has no table '{show(key)}'",
                where=self._shown,
                hint=f"did you mean '{show(near[0])}'?"
                if near
                else f"there are {listing(known, 20)} ('.' is the whole file)",
            )
        if found and not _tensors(found):
            raise UsageError("E0215", f"'{show(key)}' holds no tensors", where=self._shown)
        return found

    def _follow(self, table: Mapping[object, object], key: str) -> Mapping[object, object] | None:
        inner = as_table(table[key], self._shown) if key in table else None
        if inner is not None:
            return inner
        for place in (match.start() for match in re.finditer(r"\.", key)):
            head = as_table(table.get(key[:place]), self._shown)
            found = None if head is None else self._follow(head, key[place + 1 :])
            if found is not None:
                return found
        return None

    def _paths(self, table: Mapping[object, object], path: str, depth: int) -> Iterator[str]:
        for name, inner in self._inner(table):
            yield path + name
            if depth > 1:
                yield from self._paths(inner, f"{path}{name}.", depth - 1)
