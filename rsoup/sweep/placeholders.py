"""Placeholders: `score.py {model} --out {out}` → the arguments of one evaluation, never through a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.errors import show
from rsoup.mix import format_number
from rsoup.sweep.evaluation import Task
from rsoup.sweep.processes import cannot_run
from rsoup.sweep.scores import EvaluationFailed

NAMES: Final = ("model", "out", "lambda", "point", "seed", "split", "base", "step", "scale")

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([a-z_]+)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders, taken apart: (text, False) or (name, True), one after the other."""

    pieces: tuple[tuple[str, bool], ...]

    @property
    def names(self) -> frozenset[str]:
        """The placeholders in it."""
        return frozenset(text for text, placeholder in self.pieces if placeholder)

    def fill(self, values: Mapping[str, str | None]) -> str:
        """The text with a value for each placeholder. Raises EvaluationFailed where one has none."""
        for name in sorted(self.names):
            if values[name] is None:
                raise EvaluationFailed(f"the command says {{{name}}}, but there is none for this point")
        return "".join(values[text] or "" if placeholder else text for text, placeholder in self.pieces)


def parse(text: str) -> Template:
    """The template of a text; `{{` and `}}` are braces. Raises UsageError E0237 for a placeholder that is none."""
    pieces: list[tuple[str, bool]] = []
    for found in _PIECE.finditer(text):
        piece, name = found[0], found[1]
        if piece in ("{", "}") or (name is not None and name not in NAMES):
            raise cannot_run(
                f"'{show(text)}' has '{show(piece)}', which is no placeholder",
                hint=f"they are {' '.join(f'{{{known}}}' for known in NAMES)}; write {{{{ and }}}} for braces",
            )
        pieces.append((name, True) if name else ({"{{": "{", "}}": "}"}.get(piece, piece), False))
    return Template(tuple(pieces))


def split(command: str) -> tuple[Template, ...]:
    """A command line's arguments as a shell would split them; what is filled in is never split again.

    Raises UsageError E0237 where quotes do not close or nothing is there.
    """
    try:
        tokens = shlex.split(command)
    except ValueError as error:
        raise cannot_run(f"'{show(command)}' cannot be split: {error}", hint="close the quotation") from None
    if not tokens:
        raise cannot_run("there is no command in it", hint="--eval 'python score.py {model}'")
    return tuple(map(parse, tokens))


def values(task: Task) -> dict[str, str | None]:
    """What each placeholder means for a task; None where there is nothing it could mean."""
    return {
        "model": task.model,
        "out": task.out,
        "lambda": task.point.lambda_text,
        "point": task.point.name,
        "seed": str(task.seed),
        "split": task.split,
        "base": task.base,
        "step": None if task.point.step is None else str(task.point.step),
        "scale": format_number(task.point.scale),
    }


def variables(task: Task) -> dict[str, str]:
    """RSOUP_MODEL, RSOUP_LAMBDA… for the environment: every placeholder that means something."""
    return {f"RSOUP_{name.upper()}": text for name, text in values(task).items() if text is not None}


def fill(templates: Sequence[Template], task: Task) -> list[str]:
    """The arguments of a task. Raises EvaluationFailed for a placeholder that means nothing for it."""
    meant = values(task)
    return [template.fill(meant) for template in templates]
