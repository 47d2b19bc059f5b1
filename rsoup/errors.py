"""Everything rsoup refuses, each with a code, what happened, where, and what to type next.

RsoupError
├── UsageError          exit 2    the command line, a recipe, a number
├── IncompatibleError   exit 3    checkpoints that must not be mixed together
├── GateError           exit 4    a result beyond a limit the user set
├── EvaluationError     exit 5    some evaluations failed; the others are kept, and the sweep can go on
├── TargetError         exit 6    the output: it exists, no space, no memory, a failing disk
├── AccessError         exit 7    no permission, nothing there, no network
├── RefusedFileError    exit 8    a file that is malformed, hostile, corrupt, or changed while read
├── MismatchError       exit 9    a soup that is not what its manifest or its recipe says
└── BusyError           exit 75   somebody else works on it; type the same again later
"""

from __future__ import annotations

from dataclasses import dataclass

SHOWN_LENGTH = 120
PATH_LENGTH = 4096
_INVISIBLE = frozenset(  # letters and marks that take no place: Unicode's Default_Ignorable_Code_Point
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, 0xFFA0))
) | frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


def show(text: object, limit: int = SHOWN_LENGTH) -> str:
    """`text` with nothing left that could write to a terminal but characters one can see.

    Control, format (bidirectional, zero-width), surrogate, private, line-separating and invisible
    characters become `\\u{…}`; more than `limit` characters are cut with an ellipsis.
    """
    raw = str(text)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(c if c.isprintable() and c not in _INVISIBLE else f"\\u{{{ord(c):x}}}" for c in cut)


def show_path(path: object) -> str:
    """`path` like `show`, but whole: a path that is cut cannot be pasted."""
    return show(path, PATH_LENGTH)


def listing(names: list[str], limit: int = 5) -> str:
    """`'a', 'b' and 7 more`: the first `limit` names, quoted and made safe to print."""
    quoted = [f"'{show(name)}'" for name in names[:limit]]
    rest = len(names) - len(quoted)
    if rest:
        return f"{', '.join(quoted)} and {rest} more"
    if len(quoted) > 1:
        return f"{', '.join(quoted[:-1])} and {quoted[-1]}"
    return "".join(quoted)


@dataclass(frozen=True)
class Problem:
    """One finding inside an error: where it is (`recipe.yaml:3:5`, a file, a tensor) and what it is."""

    where: str
    what: str


class RsoupError(Exception):
    """What happened (`message`), where (`where`), what to type next (`hint`), as `code`.

    `details` are single findings where there is more than one; all of them are shown.
    """

    exit_code = 1

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        details: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        lines = [f"{self.message}{place}"]
        lines += [f"  {p.where}: {p.what}" if p.where else f"  {p.what}" for p in self.details]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(RsoupError):
    """The command line, a recipe or a number says something that cannot be meant."""

    exit_code = 2


class IncompatibleError(RsoupError):
    """The checkpoints must not be mixed together, or not in this way."""

    exit_code = 3


class GateError(RsoupError):
    """A result is beyond a limit that the user set: nothing is wrong but the result."""

    exit_code = 4


class EvaluationError(RsoupError):
    """Some evaluations of a sweep failed: what was measured is kept, and running it again retries the rest."""

    exit_code = 5


class TargetError(RsoupError):
    """The output cannot be written: it exists, it would destroy something, the disk or memory ends."""

    exit_code = 6


class AccessError(RsoupError):
    """Something is not there, or may not be read or written."""

    exit_code = 7


class RefusedFileError(RsoupError):
    """A file is malformed, hostile or corrupt, or changed while it was read."""

    exit_code = 8


class MismatchError(RsoupError):
    """A soup is not what its manifest or its recipe says: the answer of a check, not an accident.

    `result` is all that was found, a VerifyResult.
    """

    exit_code = 9
    result: object = None


class BusyError(RsoupError):
    """Another run holds the target; nothing was touched."""

    exit_code = 75
