"""The keys of a recipe file and what may be written behind each: nodes in, a Request out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rsoup import mix as mixes
from rsoup.errors import UsageError, listing, show
from rsoup.hub.address import seen_from
from rsoup.names import names_for
from rsoup.quantities import parse_size
from rsoup.recipe import Ingredient
from rsoup.request import (
    ALLOWANCES,
    FILE_FORMATS,
    LEVELS,
    MAX_CHECKPOINTS,
    METHOD_NAMES,
    MISSING,
    VOCABS,
    Request,
    RuleRequest,
)
from rsoup.tensors import output_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rsoup.recipe_nodes import Node, Problems

T = TypeVar("T")
Shares = Sequence[str | Fraction]

KEYS: Final = (
    *("base", "method", "level", "ingredients", "lambda", "normalize", "affine", "scale", "variant"),
    *("dtype", "max_shard_size", "files_from", "buffers_from", "drop", "per_tensor", "allow", "max_distance"),
    *("license", "optimizer_from", "key", "missing", "vocab", "file_format", "fold", "rank", "max_error"),
)
INGREDIENT_KEYS: Final = ("checkpoint", "checkpoints", "name", "lambda")
RULE_KEYS: Final = ("match", "layers", "lambda")


class Form:
    """A recipe's nodes, filled in as a `request`; what is wrong is noted in `problems`, and reading goes on.

    The request means something only if no problem was noted. `places` are the values of the top-level
    keys, `ingredients` and `rules` the entries of their lists, `mix_node` is where λ is given.
    """

    def __init__(self, root: Node, problems: Problems, folder: str) -> None:
        self._problems = problems
        self._folder = folder
        self.places = self._keys(root, KEYS, ("ingredients",))
        self.ingredients = self._list("ingredients", "- checkpoint: PATH", least=1)
        self.rules = self._list("per_tensor", '- match: "*.mlp.*"')
        if len(self.ingredients) > MAX_CHECKPOINTS:
            problems.at(
                self.places["ingredients"], f"more than {MAX_CHECKPOINTS} ingredients; that is the limit"
            )
            raise problems.error()
        rows = [self._keys(node, INGREDIENT_KEYS) for node in self.ingredients]
        ingredients = self._named(
            [self._checkpoints(*pair) for pair in zip(rows, self.ingredients, strict=True)], rows
        )
        self._names = [ingredient.name for ingredient in ingredients]
        self._all_readable = bool(ingredients) and all(
            all(ingredient.checkpoints) for ingredient in ingredients
        )
        own = {i: row["lambda"] for i, row in enumerate(rows) if "lambda" in row}
        self.mix_node = self.places.get("lambda") or next(iter(own.values()), None)
        values = {
            key: found
            for key, check in self._checks().items()
            if key in self.places and (found := self._value(self.places[key], check)) is not None
        }
        self.request = Request(
            ingredients=ingredients,
            mix=self._own_mix(own) if own else self._mix(self.places.get("lambda")),
            drop=self._texts("drop", str),
            allow=self._texts("allow", _one_of("allowance", ALLOWANCES)),
            per_tensor=[self._rule(node) for node in self.rules],
            **values,
        )

    def _checks(self) -> Mapping[str, Callable[[str], Any]]:
        return {
            "base": self._path,
            "method": _one_of("method", METHOD_NAMES),
            "level": _one_of("level", LEVELS),
            "normalize": _boolean,
            "affine": _boolean,
            "scale": _text_for(mixes.parse_number),
            "dtype": _text_for(output_dtype, "keep"),
            "max_shard_size": _text_for(parse_size),
            "variant": str,
            "files_from": str,
            "buffers_from": str,
            "optimizer_from": str,
            "key": str,
            "missing": _one_of("missing", MISSING),
            "vocab": _one_of("vocab", VOCABS),
            "file_format": _one_of("file format", FILE_FORMATS),
            "fold": _boolean,
            "rank": str,
            "max_error": _text_for(mixes.parse_number),
            "max_distance": _text_for(mixes.parse_number, "inf"),
            "license": str,
        }

    # ----- ingredients and their λ

    def _checkpoints(self, row: Mapping[str, Node], node: Node) -> tuple[str, ...]:
        if row.keys() >= {"checkpoint", "checkpoints"}:
            self._problems.at(row["checkpoints"], "both 'checkpoint' and 'checkpoints'; keep one of them")
        elif "checkpoints" in row:
            example = "[PATH, PATH], or checkpoint: PATH"
            paths = [
                self._value(item, self._path) for item in self._items(row["checkpoints"], example, least=1)
            ]
            return tuple(path for path in paths if path)
        elif "checkpoint" in row:
            return (self._value(row["checkpoint"], self._path) or "",)
        elif node.kind == "mapping":
            self._problems.at(node, "an ingredient without a checkpoint; write checkpoint: PATH")
        return ("",)

    def _named(
        self, groups: Sequence[tuple[str, ...]], rows: Sequence[Mapping[str, Node]]
    ) -> list[Ingredient]:
        given = [self._value(row["name"], str) if "name" in row else None for row in rows]
        nameless = [i for i, name in enumerate(given) if name is None]
        derived = dict(
            zip(nameless, names_for([groups[i][0] if groups[i] else "" for i in nameless]), strict=True)
        )
        return [Ingredient(name or derived[i], groups[i]) for i, name in enumerate(given)]

    def _own_mix(self, own: Mapping[int, Node]) -> Shares:
        if top := self.places.get("lambda"):
            line = min(node.line for node in own.values())
            self._problems.at(top, f"λ is given here and again with the ingredients, line {line}; keep one")
        else:
            for i, node in enumerate(self.ingredients):
                if i not in own and node.kind == "mapping":
                    self._problems.at(
                        node, f"'{show(self._names[i])}' has no lambda, and others have one; add it"
                    )
        return [self._value(node, mixes.parse_number) or Fraction(0) for node in own.values()]

    def _mix(self, node: Node | None) -> Shares | None:
        """The λ of a list, a mapping by name, or the word `uniform`."""
        if node is None:
            return None
        if node.kind == "list":
            return [self._value(item, mixes.parse_number) or Fraction(0) for item in node.items]
        if node.kind == "mapping":
            return self._mix_by_name(node)
        if node.text == "uniform":
            return mixes.uniform(max(1, len(self._names)))
        found = node.text.strip("[] ") if node.text else "0.3, 0.7"
        self._expected(node, "a list, a mapping by name, or the word uniform", f"[{show(found)}]")
        return None

    def _mix_by_name(self, node: Node) -> Shares:
        if not self._all_readable:
            return ()
        row = self._keys(node, self._names, what="ingredient")
        if missing := [name for name in self._names if name not in row]:
            self._problems.at(
                node, f"no λ for {listing(missing)}; name every ingredient, with 0 where it has no part"
            )
        return [
            self._value(row[name], mixes.parse_number) or Fraction(0) for name in self._names if name in row
        ]

    def _rule(self, node: Node) -> RuleRequest:
        row = self._keys(node, RULE_KEYS)
        if node.kind == "mapping":
            if ("match" in row) == ("layers" in row):
                self._problems.at(node, "a rule needs either 'match' or 'layers'; write one of them")
            if "lambda" not in row:
                self._problems.at(node, "a rule without λ; write lambda: [0.5, 0.5]")
        found = {key: self._value(row[key], str) for key in ("match", "layers") if key in row}
        return RuleRequest(self._mix(row.get("lambda")) or (), **found)

    # ----- mappings, lists, texts

    def _keys(
        self, node: Node, known: Sequence[str], required: Sequence[str] = (), *, what: str = "key"
    ) -> dict[str, Node]:
        if node.kind != "mapping":
            self._expected(node, "a mapping", f"{(*required, *known)[0]}: …")
            return {}
        allowed = set(known)
        for key, _ in node.pairs:
            if key.text in ("points", "evaluate") and known is KEYS:
                self._problems.at(key, "this is a sweep, not a recipe; type rsoup sweep FILE -o RUN")
            elif key.text not in allowed and not self._problems.full:
                self._problems.at(key, f"unknown {what} '{show(key.text)}'; {_nearest(key.text, known)}")
        found = {key.text: value for key, value in node.pairs if key.text in allowed}
        for name in required:
            if name not in found:
                self._problems.at(node, f"the key '{name}' is missing; write {name}: …")
        return found

    def _list(self, key: str, example: str, *, least: int = 0) -> tuple[Node, ...]:
        return self._items(self.places[key], example, least=least) if key in self.places else ()

    def _items(self, node: Node, example: str, *, least: int = 0) -> tuple[Node, ...]:
        if node.kind != "list":
            self._expected(node, "a list", example)
        elif len(node.items) < least:
            self._problems.at(node, f"the list is empty; write {example}")
        return node.items

    def _texts(self, key: str, check: Callable[[str], str]) -> list[str]:
        values = (
            self._value(item, check) for item in self._list(key, "[…], with its entries between the brackets")
        )
        return [value for value in values if value is not None]

    def _value(self, node: Node, check: Callable[[str], T]) -> T | None:
        """What `check` makes of the text; None, and a problem noted, where it raises UsageError."""
        if node.kind != "text" or not node.text:
            self._expected(node, "one value", "it as a text")
            return None
        if node.plain and node.text in ("~", "null", "Null", "NULL"):
            self._problems.at(
                node, f"'{node.text}' is not a value; leave the line out, or put the text in quotes"
            )
            return None
        try:
            return check(node.text)
        except UsageError as error:
            self._problems.at(node, show("; ".join(filter(None, spoken(error))), 400))
            return None

    def _expected(self, node: Node, what: str, example: str) -> None:
        if node.kind == "text" and not node.text:
            self._problems.at(node, "nothing is written here; write a value, or leave the line out")
        elif node.kind != "unreadable":
            self._problems.at(node, f"{what} is expected here, not {node}; write {example}")

    def _path(self, text: str) -> str:
        """`text` seen from the folder of the recipe, unless it is absolute, an address, or there is no folder."""
        if text.startswith("~"):
            raise UsageError("E0220", f"'{show(text)}' starts with '~'", hint="write the path out")
        return seen_from(self._folder, text)


def _one_of(what: str, choices: Sequence[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise UsageError("E0210", f"there is no {what} '{show(text)}'", hint=_nearest(text, choices))
        return text

    return check


def _text_for(parse: Callable[[str], object], *words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            parse(text)
        return text

    return check


def _boolean(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise UsageError("E0220", f"'{show(text)}' is neither true nor false", hint="write true or false")


def _nearest(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text[:100], known := list(known), 1)
    return f"did you mean '{show(near[0])}'?" if near else f"there are {listing(known, 20)}"


def spoken(error: UsageError) -> tuple[str, str | None]:
    """The message and the hint of an error, with flags of the command line as a recipe writes them."""
    return _in_yaml(error.message), None if error.hint is None else _in_yaml(error.hint)


def _in_yaml(text: str) -> str:
    number = r"[0-9./-]+"
    text = re.sub(
        f"--lambda ({number}(?:,{number})*)", lambda m: f"'lambda: [{m[1].replace(',', ', ')}]'", text
    )
    text = re.sub(r"--(normalize|affine)\b", r"'\1: true'", text)
    text = text.replace("--uniform", "'lambda: uniform'").replace("NAME=PATH", "'name: NAME'")
    text = re.sub(r"--(base|method) (BASE|linear)", r"'\1: \2'", text)
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda m: f"'{m[1].replace('-', '_')}:'", text)
