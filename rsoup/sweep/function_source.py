"""Where a function is written, found without running any of it."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import sys

from rsoup.errors import UsageError, show


def find(function: str, *, folder: str) -> str:
    """The file of the module of `module:name`, as a process in `folder` would import it; nothing is executed.

    Raises UsageError E0238 where there is no such module, or its source defines no such name.
    """
    module, colon, name = function.partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise _no_function(
            function, "it is not of the form module:name", "a function in score.py: score:function"
        )
    places: list[str] | None = [folder, *(place or folder for place in sys.path)]
    parts = module.split(".")
    spec: importlib.machinery.ModuleSpec | None = None
    for number in range(1, len(parts) + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(parts[:number]), places) if places else None
        if spec is None:
            raise _no_function(
                function,
                f"there is no module '{show('.'.join(parts[:number]))}' in '{show(folder)}' nor where Python looks",
                "name it as Python imports it, from the sweep's folder",
            )
        places = None if spec.submodule_search_locations is None else [*spec.submodule_search_locations]
    origin = None if spec is None else spec.origin
    if origin is None or not os.path.isfile(origin):
        raise _no_function(
            function, f"'{show(module)}' is a folder without __init__.py", "name a module in it"
        )
    if origin.endswith(".py") and not _defines(origin, name, function):
        raise _no_function(
            function, f"'{show(os.path.basename(origin))}' defines no '{show(name)}'", f"def {name}(soup): …"
        )
    return origin


def _defines(path: str, name: str, function: str) -> bool:
    """Whether a module's source binds a name anywhere outside of functions and classes, or may do so unseen."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise _no_function(
            function,
            f"'{show(os.path.basename(path))}' is not Python{where}: {show(error.args[0])}",
            "mend it",
        ) from None
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name in (name, "__getattr__"):
                return True
            continue
        if isinstance(node, ast.alias) and (
            node.name == "*" or name in (node.asname, node.name.split(".")[0])
        ):
            return True
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        waiting += ast.iter_child_nodes(node)
    return False


def _no_function(function: str, what: str, hint: str) -> UsageError:
    return UsageError("E0238", f"the function '{show(function)}' cannot be called: {what}", hint=hint)
