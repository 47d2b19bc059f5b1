"""The process in which a function scores soups: it imports the function once, and opens each soup once.

`python -c STARTER module:name ANSWERS` reads requests from stdin, one line of JSON each, and writes the answers to
descriptor ANSWERS, since stdout and stderr are the function's: they go to the log of the task.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import math
import numbers
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import IO, Any, Final

ARGUMENTS: Final = ("seed", "split", "point", "out", "step")  # what a function may ask for besides the soup

Opener = Callable[[str], Any]


def main(arguments: list[str], *, opener: Opener | None = None) -> None:
    """Answer requests until stdin ends; `opener` opens the soup of a recipe's YAML text, rsoup.open_soup if None."""
    module, _, name = arguments[0].partition(":")
    answers = os.fdopen(int(arguments[1]), "w", encoding="utf-8", buffering=1)
    os.set_inheritable(answers.fileno(), False)
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path.insert(0, os.getcwd())
    with contextlib.ExitStack() as opened:
        worker = _Worker(module, name, opener or _open, opened)
        for line in requests:
            answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")


class _Worker:
    def __init__(self, module: str, name: str, opener: Opener, opened: contextlib.ExitStack) -> None:
        self._module, self._name, self._opener, self._opened = module, name, opener, opened
        self._function: Callable[..., object] | None = None
        self._soup: Any = None
        self._recipe: str | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, object]:
        """`scores`, or `failure` in words, whatever the function does but ending the process."""
        _write_to(f"{request['log']}.out", sys.stdout, 1)
        _write_to(request["log"], sys.stderr, 2)
        doing = "it cannot be imported: "
        try:
            if self._function is None:
                self._function = getattr(importlib.import_module(self._module), self._name)
            doing = "the soup cannot be opened: "
            soup = self._soup_of(request)
            doing = ""
            return {"scores": _plain(self._function(soup, **_asked(self._function, request["arguments"])))}
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            traceback.print_exc()
            return {"failure": doing + "".join(traceback.format_exception_only(error)).strip()[-4000:]}
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()

    def _soup_of(self, request: Mapping[str, Any]) -> Any:
        if self._recipe != request["recipe"]:
            self._opened.close()
            self._recipe = None
            self._soup = self._opened.enter_context(self._opener(request["recipe"]))
            self._recipe = request["recipe"]
        mix = [Fraction(share) for share in request["mix"]]
        self._soup.set_mix(mix, scale=Fraction(request["scale"]))
        return self._soup


def _open(text: str) -> Any:
    from rsoup import recipe_yaml
    from rsoup.live import open_soup

    return open_soup(recipe_yaml.loads(text))


def _asked(function: Callable[..., object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Those of the arguments that a function's signature names, all if it takes any."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):  # written in C
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(arguments)
    named = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    return {name: value for name, value in arguments.items() if name in named}


def _plain(result: object) -> dict[str, object]:
    """A function's result as JSON: numbers of any library are floats, (value, error) an object."""
    if not isinstance(result, Mapping):
        raise TypeError(f"it returned {type(result).__name__}, not a mapping from metrics to numbers")
    return {str(name): _value(value) for name, value in result.items()}


def _value(value: Any) -> object:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, tuple):
        if len(value) != 2:
            raise TypeError(f"it returned a tuple of {len(value)}, where (value, standard error) is meant")
        return {"value": _value(value[0]), "stderr": _value(value[1])}
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Real):
        return _float(value)
    if callable(item := getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return _value(item())  # of numpy, torch, jax
    raise TypeError(f"it returned {type(value).__name__} for a metric, not a number")


def _float(value: numbers.Real) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _write_to(path: str, stream: IO[str], descriptor: int) -> None:
    """Send a stream, and what C libraries write below it, to the end of a file."""
    with contextlib.suppress(Exception):
        stream.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, descriptor)
    os.close(file)
