"""Everything rsoup refuses, each with a code, what happened, where, and what to type next.

RsoupError
├── UsageError          exit 2    the command line, a recipe, a number
├── IncompatibleError   exit 3    checkpoints that must not be mixed together
├── TargetError         exit 6    the output: it exists, no space, no memory, a failing disk
├── AccessError         exit 7    no permission, nothing there, no network
├── RefusedFileError    exit 8    a file that is malformed, hostile, corrupt, or changed while read
└── BusyError           exit 75   somebody else works on it; type the same again later
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

SHOWN_LENGTH = 120


def show(text: object, limit: int = SHOWN_LENGTH) -> str:
    """`text` with nothing left that could write to a terminal but printable characters.

    Control, format (bidirectional, zero-width), surrogate, private and line-separating
    characters become `\\u{…}`; more than `limit` characters are cut with an ellipsis.
    """
    raw = str(text)
    cut = raw if len(raw) <= limit else raw[: limit - 1] + "…"
    return "".join(c if _is_plain(c) else f"\\u{{{ord(c):x}}}" for c in cut)


def _is_plain(character: str) -> bool:
    if " " <= character <= "~":
        return True
    return unicodedata.category(character)[0] not in "CZ"


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


class TargetError(RsoupError):
    """The output cannot be written: it exists, it would destroy something, the disk or memory ends."""

    exit_code = 6


class AccessError(RsoupError):
    """Something is not there, or may not be read or written."""

    exit_code = 7


class RefusedFileError(RsoupError):
    """A file is malformed, hostile or corrupt, or changed while it was read."""

    exit_code = 8


class BusyError(RsoupError):
    """Another run holds the target; nothing was touched."""

    exit_code = 75
