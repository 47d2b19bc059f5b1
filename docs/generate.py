"""Writes docs/cli.md, docs/errors.md and docs/faults.md from the code and the tests.

python docs/generate.py            write them
python docs/generate.py --check    write nothing; exit 1 if one of them is not what it should be
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from types import ModuleType

from typer.testing import CliRunner

from rsoup import errors
from rsoup.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 100
CODE = re.compile(r"E\d{4}")
GENERATED = "*Made by `python docs/generate.py`; change the code, not this page.*"

EXITS = {
    "0": "done",
    "1": "a bug, or a broken installation: please report it",
    "2": "the command line, a recipe or a number says something that cannot be meant",
    "3": "the checkpoints must not be mixed together, or not in this way",
    "4": "a result is beyond a limit you set (`--fail-above-error`, `rsoup gate`)",
    "5": "some evaluations of a sweep failed; the others are kept, the same command retries only these",
    "6": "the output: it exists, or space, memory or the disk ends",
    "7": "something is not there, or may not be read or written",
    "8": "a file was refused: malformed, hostile, corrupt, or changed while it was read",
    "9": "`verify`, `diff` or a re-cooking `merge` found a difference: the answer, not an accident",
    "75": "another run works on the same output, or a sweep's `--budget` is used up; type the same again later",
    "129, 130, 143": "stopped by SIGHUP, by Ctrl-C, by SIGTERM; what is done is kept, type the same to go on",
    "141": "whoever read the output closed it (`rsoup … \\| head`); what was made is complete",
}


# --- docs/cli.md


def commands() -> dict[str, str]:
    """Every command's name and what its `--help` says, 100 columns wide; the first one is rsoup itself."""
    names = [info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands]
    return {"rsoup": _help()} | {f"rsoup {name}": _help(name) for name in names}


def _help(*command: str) -> str:
    result = CliRunner().invoke(
        app, [*command, "--help"], prog_name="rsoup", terminal_width=WIDTH, catch_exceptions=False
    )
    return result.output.strip()


def cli_page() -> str:
    """docs/cli.md: the help of every command."""
    lines = ["# Commands", "", GENERATED, ""]
    for name, text in commands().items():
        lines += [f"## {name}", "", f"What `{name} --help` says:", "", "```text", text, "```", ""]
    return "\n".join(lines)


# --- docs/errors.md: the calls that make errors, read from the source


@dataclass(frozen=True)
class Refusal:
    """One way in which a code occurs: the error's class, its message and its hint, … for what varies."""

    code: str
    kind: str
    message: str
    hint: str


@dataclass(frozen=True)
class Module:
    """A file of rsoup: its functions and constants by name, and which function each node stands in."""

    name: str
    tree: ast.Module

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        """All functions, by their name alone."""
        return {node.name: node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)}

    @cached_property
    def inside(self) -> dict[ast.AST, ast.FunctionDef]:
        """Node → the innermost function around it."""
        found: dict[ast.AST, ast.FunctionDef] = {}
        for function in (node for node in ast.walk(self.tree) if isinstance(node, ast.FunctionDef)):
            found |= {node: function for node in ast.walk(function) if node is not function}
        return found


@dataclass(frozen=True)
class Scope:
    """Where an expression is read: the function around it, and what its parameters are bound to by one caller."""

    module: Module
    function: ast.FunctionDef | None = None
    bound: Mapping[str, tuple[ast.expr, Scope]] = field(default_factory=dict)

    def texts(self, node: ast.expr, depth: int = 0) -> list[str]:
        """Every text an expression can become as far as the source tells; `…` stands for the rest."""
        match node:
            case _ if depth > 8:
                return ["…"]
            case ast.Constant(value=str(text)):
                return [text]
            case ast.Constant(value=None):
                return [""]
            case ast.JoinedStr(values=parts):
                return _joined([self.texts(part, depth + 1) for part in parts])
            case ast.FormattedValue(value=ast.Name() as value):
                return [text for text in self.texts(value, depth + 1) if text] or ["…"]
            case ast.List(elts=values):
                return _distinct(text for value in values for text in self.texts(value, depth + 1))
            case ast.Call(func=ast.Attribute(ast.Constant(), "join"), args=[ast.Name() as value]):
                return self.texts(value, depth + 1)
            case ast.IfExp(body=one, orelse=other):
                return _distinct([*self.texts(one, depth + 1), *self.texts(other, depth + 1)])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _joined([self.texts(left, depth + 1), self.texts(right, depth + 1)])
            case ast.Name(id=name):
                return self._named(name, depth)
            case ast.Call(func=ast.Name(id=name)) if name in self.module.functions:
                called = self.module.functions[name]
                scope = Scope(self.module, called, _binding(node, called, self))
                returned = [r.value for r in ast.walk(called) if isinstance(r, ast.Return) and r.value]
                return _distinct(text for value in returned for text in scope.texts(value, depth + 1))
        return ["…"]

    def _named(self, name: str, depth: int) -> list[str]:
        if name in self.bound:
            value, scope = self.bound[name]
            return scope.texts(value, depth + 1)
        found: list[str] = []
        for statement in self._statements(self.function.body if self.function else self.module.tree.body):
            match statement:
                case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                    found += self.texts(value, depth + 1)
                case ast.AugAssign(target=ast.Name(id=target), value=value) if target == name:
                    found += _joined([found, self.texts(value, depth + 1)])
        if not found and self.function:
            outer = self.module.inside.get(self.function)
            return Scope(self.module, outer)._named(name, depth + 1)
        return _distinct(found) or ["…"]

    def _statements(self, body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        """The statements of a body and of its branches, but for branches this caller cannot come through."""
        for statement in body:
            yield statement
            for branch in ("body", "orelse", "finalbody", "handlers"):
                if isinstance(statement, ast.FunctionDef | ast.ClassDef) or self._never(statement, branch):
                    continue
                for inner in getattr(statement, branch, ()):
                    yield from self._statements(
                        inner.body if isinstance(inner, ast.ExceptHandler) else [inner]
                    )

    def _never(self, statement: ast.stmt, branch: str) -> bool:
        match statement:
            case ast.If(test=ast.Compare(ast.Name(id=name), [ast.Eq()], [ast.Constant(str(value))])):
                if name in self.bound:
                    known = self._named(name, 0)
                    return value not in known if branch == "body" else known == [value]
        return False


def _joined(parts: Sequence[Sequence[str]]) -> list[str]:
    if len(list(product(*parts))) > 40:
        parts = [part if len(part) == 1 else ["…"] for part in parts]
    return _distinct(re.sub("…+", "…", "".join(row)) for row in product(*parts))


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _binding(call: ast.Call, function: ast.FunctionDef, caller: Scope) -> dict[str, tuple[ast.expr, Scope]]:
    """Parameter → the argument of this call, read where the caller stands; else its default."""
    parameters = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)]
    plain = function.args.defaults
    values = dict(zip(parameters[len(function.args.args) - len(plain) :], plain, strict=False))
    keyword_only = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    values |= {argument.arg: default for argument, default in keyword_only if default is not None}
    bound = {name: (value, Scope(caller.module)) for name, value in values.items()}
    bound |= {name: (value, caller) for name, value in zip(parameters, call.args, strict=False)}
    return bound | {word.arg: (word.value, caller) for word in call.keywords if word.arg in parameters}


def _callers(module: Module, function: ast.FunctionDef, depth: int = 0) -> list[Scope]:
    """One scope for every place of its module that calls a function, with its parameters bound; else one unbound."""
    calls = [
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function.name
    ]
    scopes = [
        Scope(module, function, _binding(call, function, caller))
        for call in calls
        for caller in _scopes(module, call, depth + 1)
    ]
    return scopes or [Scope(module, function)]


def _scopes(module: Module, call: ast.Call, depth: int = 0) -> list[Scope]:
    """The scopes in which a call is made: as many as its function has callers, where its arguments need them."""
    function = around = module.inside.get(call)
    used = _names_used(call, function)
    bounds: list[Mapping[str, tuple[ast.expr, Scope]]] = [{}]
    while around is not None:
        parameters = {argument.arg for argument in (*around.args.args, *around.args.kwonlyargs)}
        if depth < 4 and parameters & used:
            callers = _callers(module, around, depth)
            bounds = [{**caller.bound, **inner} for caller in callers for inner in bounds]
        around = module.inside.get(around)
    return [Scope(module, function, bound) for bound in bounds]


def _names_used(call: ast.Call, function: ast.FunctionDef | None) -> set[str]:
    """Names in the texts of a call, and in what their names were assigned in its function."""
    used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    for node in ast.walk(function) if function else ():
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id in used for t in node.targets
        ):
            used |= {inner.id for inner in ast.walk(node.value) if isinstance(inner, ast.Name)}
    return used


@cache
def modules() -> list[Module]:
    """Every file of rsoup, parsed."""
    files = sorted((ROOT / "rsoup").rglob("*.py"))
    return [Module(str(file.relative_to(ROOT)), ast.parse(file.read_text("utf-8"))) for file in files]


def classes() -> dict[str, type[errors.RsoupError]]:
    """RsoupError and its children by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.RsoupError)
    }


@cache
def refusals() -> list[Refusal]:
    """Everything rsoup may refuse: calls of an error's class, and rows (class, code, message, hint) of a table."""
    kinds = classes()
    found: list[Refusal] = []
    for module in modules():
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[code, message, *_]) if kind in kinds:
                    hints = [word.value for word in node.keywords if word.arg == "hint"]
                    rows = [(scope, code, message, *hints) for scope in _scopes(module, node)]
                case ast.Tuple(elts=[ast.Name(id=kind), code, message, hint]) if kind in kinds:
                    rows = [(Scope(module), code, message, hint)]
                case _:
                    continue
            for scope, *parts in rows:
                texts = [scope.texts(part) for part in parts]
                found += [Refusal(c, kind, m, h) for c, m, h in product(*texts, *([[""]] * (3 - len(texts))))]
    return [refusal for refusal in dict.fromkeys(found) if CODE.fullmatch(refusal.code)]


def codes_in_source() -> set[str]:
    """Every text of the source that is an error code and nothing else."""
    return {
        node.value
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    }


def errors_page() -> str:
    """docs/errors.md: the exit codes, and every error with its messages and hints."""
    kinds = classes()
    lines = ["# Errors and exit codes", "", GENERATED, ""]
    lines += [
        "An error says what happened, where, and what to type next; `--json` gives the same as data.",
        "",
    ]
    lines += ["| exit | means |", "|---|---|", *(f"| {code} | {what} |" for code, what in EXITS.items()), ""]
    by_code: dict[str, list[Refusal]] = {}
    for refusal in refusals():
        by_code.setdefault(refusal.code, []).append(refusal)
    for code, found in sorted(by_code.items()):
        lines += [f"## {code}", ""]
        for name in _distinct(refusal.kind for refusal in found):
            kind = kinds[name]
            stopped = "128 + the signal's number"
            number = stopped if code == "E7502" else str(kind.exit_code)
            lines += [f"`{name}`, exit {number}", ""]
        for message in _distinct(refusal.message for refusal in found):
            hints = _distinct(r.hint for r in found if r.message == message and r.hint.strip("… "))
            lines += [f"* {_inline(message)}", *(f"  * hint: {_inline(hint)}" for hint in hints)]
        lines.append("")
    return "\n".join(lines)


def _inline(text: str) -> str:
    """A text of the terminal as Markdown code, whatever quotes it holds."""
    if not text.strip("… "):
        return "in the words of what refused it"
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}"


# --- docs/faults.md


@dataclass(frozen=True)
class Test:
    """A test, where it stands, which faults it covers, and whether it is run only on demand."""

    file: str
    name: str
    faults: frozenset[str]
    long: bool


def catalogue() -> ModuleType:
    """tests/fault_catalogue.py."""
    spec = importlib.util.spec_from_file_location("fault_catalogue", ROOT / "tests" / "fault_catalogue.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def marked_tests() -> list[Test]:
    """Every test that carries `@pytest.mark.fault(…)`, by itself, its class, or one of its parameters."""
    found = []
    for file in sorted((ROOT / "tests").glob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        lists = {
            target.id: statement.value
            for statement in tree.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
            for target in (statement.targets if isinstance(statement, ast.Assign) else [statement.target])
            if isinstance(target, ast.Name)
        }
        above = [lists["pytestmark"]] if "pytestmark" in lists else []
        found += [test for test in _marked(tree, above, lists, file.stem) if test.faults]
    return found


def _marked(
    body: ast.Module | ast.ClassDef, above: Sequence[ast.expr], lists: Mapping[str, ast.expr], file: str
) -> Iterator[Test]:
    for item in body.body:
        if isinstance(item, ast.ClassDef):
            yield from _marked(item, [*above, *item.decorator_list], lists, file)
        elif isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
            marks = [*above, *item.decorator_list]
            named = {n.id for mark in marks for n in ast.walk(mark) if isinstance(n, ast.Name)}
            nodes = [*marks, *(lists[name] for name in sorted(named & lists.keys()))]
            faults = {fault for node in nodes for fault in _faults(node, lists)}
            long = any(isinstance(n, ast.Attribute) and n.attr == "long" for m in marks for n in ast.walk(m))
            yield Test(file, item.name, frozenset(faults), long)


def _faults(node: ast.AST, lists: Mapping[str, ast.expr]) -> Iterator[str]:
    """The cases in every `….mark.fault(…)` below a node; a computed one names a list of rows that start with theirs."""
    for call in ast.walk(node):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.fault")):
            continue
        for argument in call.args:
            if isinstance(argument, ast.Constant):
                yield str(argument.value)
                continue
            names = [n.id for n in ast.walk(argument) if isinstance(n, ast.Name) and n.id in lists]
            for row in (row for name in names for row in getattr(lists[name], "elts", ())):
                first = (row.args if isinstance(row, ast.Call) else row.elts)[0]
                yield str(first.value)


def faults_page() -> str:
    """docs/faults.md: every fault of the catalogue, and the tests that cause it."""
    book, tests = catalogue(), marked_tests()
    covered = {fault for test in tests for fault in test.faults}
    later = [fault for fault, case in book.CASES.items() if case.later and fault not in covered]
    open_cases = [fault for fault in book.CASES if fault not in covered and fault not in later]
    lines = ["# Faults", "", GENERATED, ""]
    lines += [
        "What goes wrong with checkpoints, disks and people, and the tests that cause it and check what comes of it.",
        "",
        f"**{len(book.CASES) - len(later) - len(open_cases)} of {len(book.CASES)} cases are covered**; "
        f"{len(later)} belong to later work; not covered: {', '.join(open_cases) or 'none'}.",
        "*(long)* marks tests of minutes, run by `pytest -m long`.",
        "Groups that are not counted yet: "
        + ", ".join(f"{group}, {what}" for group, what in book.LATER_GROUPS.items())
        + ".",
        "",
    ]
    others = {fault: case for fault, case in book.LATER_CASES.items() if fault in covered}
    titles = {**book.GROUPS, "": "Of the other groups"}
    for group, title in titles.items():
        cases = {f: c for f, c in book.CASES.items() if f[0] == group} if group else others
        lines += [
            f"## {group}. {title}" if group else f"## {title}",
            "",
            "| | fault | tests |",
            "|---|---|---|",
        ]
        lines += [
            f"| {fault} | {case.title} | {_cell(fault, case.later, tests)} |" for fault, case in cases.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(fault: str, later: str, tests: Sequence[Test]) -> str:
    by_file: dict[str, list[str]] = {}
    for test in tests:
        if fault in test.faults:
            name = test.name.removeprefix("test_").replace("_", " ")
            by_file.setdefault(test.file, []).append(name + (" *(long)*" if test.long else ""))
    if not by_file:
        return f"later: {later}" if later else "**not covered**"
    return "<br>".join(f"[{file}](../tests/{file}.py): {'; '.join(names)}" for file, names in by_file.items())


# --- all of them


def pages() -> dict[Path, str]:
    """Every generated file and what should be in it."""
    made = {"cli.md": cli_page(), "errors.md": errors_page(), "faults.md": faults_page()}
    return {ROOT / "docs" / name: text.rstrip("\n") + "\n" for name, text in made.items()}


def stale() -> list[str]:
    """The generated files that are missing or not what they should be."""
    return [
        path.name
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write the pages, or with --check only say which ones are stale."""
    if "--check" in sys.argv[1:]:
        found = stale()
        if found:
            print(f"stale: {', '.join(found)}; run python docs/generate.py", file=sys.stderr)
        return 1 if found else 0
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
