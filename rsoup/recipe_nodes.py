"""YAML as a tree of texts with their positions; whatever else YAML can do is refused."""

from __future__ import annotations

import bisect
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from rsoup.errors import Problem, UsageError, show

if TYPE_CHECKING:
    from collections.abc import Iterator

    import yaml

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 20
MAX_LISTED: Final = 100

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_TAB_IN_INDENTATION = re.compile(r"(?:^|(?<=[\r\n])) *\t")
_SUSPECT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")

_SYNTAX = {
    "mapping values are not allowed": "a ':' that cannot stand here; check the indentation, "
    "and put a text that contains ': ' in quotes",
    "could not find expected ':'": "a key without its ':'; write key: value",
    "expected alphabetic or numeric": 'a text that starts with * or & needs quotes: "*.bias"',
    "cannot start any token": "a value cannot start with this character; put the value in quotes",
    "expected <block end>": "the indentation does not fit the lines above; align it with its neighbours",
    "expected ',' or ']'": "a list that is not closed; add ',' or ']'",
    "expected ',' or '}'": "a mapping that is not closed; add ',' or '}'",
    "unexpected end of stream": "a quote that is never closed; add the second one",
    "unknown escape character": "a backslash that means nothing in double quotes; use single quotes",
    "sequence entries are not allowed": "a '-' that cannot stand here; put it on a line of its own",
    "expected the node content": "a value is missing here; write one, or put the text in quotes",
    "expected <document start>": "something that belongs to nothing above; check the indentation",
}


@dataclass(frozen=True, slots=True)
class Node:
    """A text, a list or a mapping of a recipe file, and where it starts (line and column from 1).

    `plain` is true for a text without quotes. An `unreadable` node is one whose problem is already known.
    """

    kind: Literal["text", "list", "mapping", "unreadable"]
    line: int
    column: int
    text: str = ""
    plain: bool = False
    items: tuple[Node, ...] = ()
    pairs: tuple[tuple[Node, Node], ...] = ()

    def __str__(self) -> str:
        return f"the text '{show(self.text)}'" if self.kind == "text" else f"a {self.kind}"


class Problems:
    """What is wrong with one file, gathered so that all of it can be said at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: set[tuple[int, int, str]] = set()

    @property
    def full(self) -> bool:
        """Whether there are already more problems than will be shown."""
        return len(self._found) > MAX_LISTED

    def add(self, line: int, column: int, what: str) -> None:
        """Note a problem at a position; `what` is already safe to print."""
        self._found.add((line, column, what))

    def at(self, node: Node, what: str) -> None:
        """Note a problem of a node; `what` is already safe to print."""
        self.add(node.line, node.column, what)

    def where(self, line: int, column: int) -> str:
        """`recipe.yaml:3:5`, as editors and terminals follow it."""
        return f"{show(self.name)}:{line}:{column}"

    def error(self) -> UsageError:
        """UsageError E0220 with every problem, in the order of the file."""
        count = len(self._found)
        details = [Problem(self.where(line, column), what) for line, column, what in sorted(self._found)]
        if count > MAX_LISTED:
            details[MAX_LISTED:] = [Problem("", f"and {count - MAX_LISTED} more")]
        message = f"{count} problem{'s' * (count != 1)} in {show(self.name)}"
        return UsageError("E0220", message, details=tuple(details))

    def check(self) -> None:
        """Raise UsageError E0220 if anything was noted."""
        if self._found:
            raise self.error()


def decode(data: bytes, problems: Problems) -> str:
    """The text of a file in UTF-8, without its byte order mark.

    Raises UsageError E0220 for other encodings and for more than `MAX_BYTES` bytes.
    """
    if len(data) > MAX_BYTES:
        problems.add(1, 1, f"the file is larger than {MAX_BYTES} bytes; a recipe is a page of text")
        raise problems.error()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        problems.add(*_Places(before).of(len(before)), "this is not UTF-8; save the file as UTF-8")
        raise problems.error() from error


def parse(text: str, problems: Problems) -> Node:
    """The one document of `text` as a tree of nodes.

    Duplicate keys, tags, anchors, aliases and merge keys are added to `problems` and reading goes on;
    UsageError E0220 is raised where it cannot: control characters, tabs as indentation, a syntax error,
    an empty file, more than `MAX_DEPTH` levels or `MAX_BYTES` bytes.
    """
    import yaml

    text = text.removeprefix("\ufeff")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.add(1, 1, f"the file is larger than {MAX_BYTES} bytes; a recipe is a page of text")
        raise problems.error()
    _check_characters(text, problems)
    problems.check()
    loader = yaml.SafeLoader(text)
    try:
        return _Tree(iter(loader.get_event, None), problems).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problems.add(line, column, _in_plain_words(error.problem or "this is not YAML"))
        raise problems.error() from error
    except (ValueError, OverflowError) as error:  # PyYAML's chr() of "\U00110000", int() of %YAML 9…9.1
        mark = loader.get_mark()
        what = "this is not YAML: an escape or a number in it is out of range"
        problems.add(mark.line + 1, mark.column + 1, what)
        raise problems.error() from error


def _check_characters(text: str, problems: Problems) -> None:
    places = _Places(text)
    for found in _SUSPECT.finditer(text):
        name = "a NUL" if found[0] == "\0" else f"the {_category(found[0])} U+{ord(found[0]):04X}"
        problems.add(*places.of(found.start()), f"{name}; take it out")
    for found in _TAB_IN_INDENTATION.finditer(text):
        problems.add(*places.of(found.end() - 1), "a tab in the indentation; write spaces")


def _category(character: str) -> str:
    return "control character" if unicodedata.category(character) == "Cc" else "invisible character"


class _Places:
    """Line and column, from 1, of the characters of a text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]

    def of(self, index: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._starts, index)
        return line, index - self._starts[line - 1] + 1


def _in_plain_words(problem: str) -> str:
    said = next((words for beginning, words in _SYNTAX.items() if beginning in problem), None)
    return said or f"this is not YAML: {show(problem)}"


class _Tree:
    """Builds nodes from PyYAML's events, so that nothing is resolved, converted or expanded on the way."""

    def __init__(self, events: Iterator[yaml.Event], problems: Problems) -> None:
        self._events = events
        self._problems = problems

    def document(self) -> Node:
        import yaml

        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    what = "a second document; a recipe is one document, without another '---'"
                    self._problems.add(*_start(event), what)
                    break
            elif isinstance(event, yaml.NodeEvent):
                root = self._node(event, 1)
        if root is None or (root.kind == "text" and root.plain and not root.text):
            self._problems.add(1, 1, "the recipe is empty; it needs at least 'ingredients:'")
            raise self._problems.error()
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        import yaml

        line, column = _start(event)
        if depth > MAX_DEPTH:
            self._problems.add(line, column, f"more than {MAX_DEPTH} levels; a recipe has four")
            raise self._problems.error()
        if isinstance(event, yaml.AliasEvent):
            what = f"the alias '*{show(event.anchor)}'; write the value out, or a text in quotes"
            self._problems.add(line, column, what)
            return Node("unreadable", line, column)
        self._refuse_decoration(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._text(event)
        if isinstance(event, yaml.SequenceStartEvent):
            items = tuple(self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent))
            return Node("list", line, column, items=items)
        pairs = []
        for key in self._until(yaml.MappingEndEvent):
            key_node = self._node(key, depth + 1)
            pairs.append((key_node, self._node(next(self._events), depth + 1)))
        return Node("mapping", line, column, pairs=self._distinct(pairs))

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _refuse_decoration(self, event: yaml.Event) -> None:
        if anchor := getattr(event, "anchor", None):
            self._problems.add(*_start(event), f"the anchor '&{show(anchor)}'; leave it out")
        if tag := getattr(event, "tag", None):
            what = f"the tag '{show(tag)}'; leave it out: every value is read as its text"
            self._problems.add(*_start(event), what)

    def _text(self, event: yaml.ScalarEvent) -> Node:
        line, column = _start(event)
        if event.style in ("|", ">") or (event.end_mark and event.end_mark.line + 1 != line):
            self._problems.add(line, column, "a value over several lines; write it on one line")
            return Node("unreadable", line, column)
        if "\0" in event.value:
            self._problems.add(line, column, "a text with a NUL in it; take it out")
            return Node("unreadable", line, column)
        return Node("text", line, column, text=event.value, plain=event.style is None)

    def _distinct(self, pairs: list[tuple[Node, Node]]) -> tuple[tuple[Node, Node], ...]:
        first: dict[str, tuple[Node, Node]] = {}
        for key, value in pairs:
            if key.kind in ("list", "mapping"):
                self._problems.at(key, f"{key} as a key; a key is one word")
            elif key.kind == "text" and key.plain and key.text == "<<":
                self._problems.at(key, "the merge key '<<'; write the lines out")
            elif key.kind == "text" and key.text in first:
                line = first[key.text][0].line
                what = f"the key '{show(key.text)}' was already given in line {line}; keep one of them"
                self._problems.at(key, what)
            elif key.kind == "text":
                first[key.text] = (key, value)
        return tuple(first.values())


def _start(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)
