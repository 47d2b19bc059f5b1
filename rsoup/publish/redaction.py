"""Nothing private is published: local paths, the user's name in them, tokens; and no token gets into a message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rsoup.errors import Problem, UsageError, show, show_path

_TOKEN: Final = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
_IN_MESSAGE: Final = re.compile(
    r"\b(?:hf|api_org)_(?!(?:xet|hub|transfer|raise)(?:_|\b))[A-Za-z0-9][A-Za-z0-9_-]{2,}|(?i:\bbearer)[ :]+[^\s'\",]+"
)
_HOME: Final = re.compile(
    r"(?<![\w.-])(?:/home/[^/\s\"'`<>|]|/Users/[^/\s\"'`<>|]+/)|\b[A-Za-z]:\\+Users\\+[^\\\s]"
)
_WORD_LISTS: Final = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "added_tokens.json")
_NAMED: Final = re.compile(r"name_or_path\"\s*:\s*\"(?:/|~|\.{1,2}/|[A-Za-z]:\\)")
_PATH: Final = re.compile(r"(?<![\w.-])/[\w.@+-]+(?:/[\w.@+-]+)+")
_SYSTEM: Final = ("/usr/", "/bin/", "/etc/", "/dev/", "/proc/", "/sys/", "/lib/", "/sbin/")
_MOST_PATHS: Final = 20_000
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Private:
    """What is private on this machine: the user's home folder, the user's name as part of a path, paths that are there."""

    home: str | None = None
    user: str | None = None
    is_path: Callable[[str], bool] = lambda _: False

    @classmethod
    def here(cls) -> Private:
        """That of whoever runs this program."""
        home = os.path.expanduser("~").rstrip("/")
        if not home.startswith("/"):
            return cls(is_path=os.path.lexists)
        user = os.path.basename(home)
        return cls(home, user if len(user) > 2 and user != "root" else None, os.path.lexists)

    def patterns(self) -> Iterator[tuple[re.Pattern[str], str]]:
        """(pattern, what it is) of everything that is looked for in every text."""
        yield _TOKEN, "a token of the Hub"
        yield _NAMED, "a path on a machine, where the name of a model belongs"
        if self.home is not None:
            yield re.compile(rf"(?<![\w.-]){re.escape(self.home)}(?![\w.-])"), "your home folder"
        if self.user is not None:
            yield _below(self.user), "a path with your user name"


def _below(user: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.:/])/(?:[\w.@+-]+/)*{re.escape(user)}/")


def findings(name: str, text: str, private: Private) -> list[Problem]:
    """Every line of a text that must not be published, as FILE:LINE and what it holds; never the thing itself.

    In lists of words (a tokenizer's) the general patterns are words, and only the token, the user's own home
    and name count.
    """
    searched = list(private.patterns())
    are_words = name.rpartition("/")[2] in _WORD_LISTS
    if not are_words:
        searched.append((_HOME, "a path of somebody's home folder"))
    there = set() if are_words else _paths(text, private)
    if not there and not any(pattern.search(text) for pattern, _ in searched):
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        what = next((what for pattern, what in searched if pattern.search(line)), None)
        if what is None and there and any(match[0] in there for match in _PATH.finditer(line)):
            what = "a path on this machine"
        if what is not None:
            found.append(Problem(f"{show_path(name)}:{number}", what))
    return found


def _paths(text: str, private: Private) -> set[str]:
    """The absolute paths in a text that are there on this machine, the system's own left out."""
    wanted = {match[0] for match in _PATH.finditer(text) if not match[0].startswith(_SYSTEM)}
    return {path for path in sorted(wanted)[:_MOST_PATHS] if private.is_path(path)}


def refuse(problems: Iterable[Problem]) -> None:
    """Raise UsageError E0722 where something private was found."""
    found = list(problems)
    if not found:
        return
    more = () if len(found) <= SHOWN else (Problem("", f"and {len(found) - SHOWN} more lines"),)
    raise UsageError(
        "E0722",
        "something private would be published",
        details=(*found[:SHOWN], *more),
        hint="take it out of the checkpoint the file comes from and merge again, or out of this file",
    )


def without_tokens(text: object) -> str:
    """A message of somebody else's, on one line, safe to print, any token in it struck out."""
    return show(" ".join(_IN_MESSAGE.sub("hf_…", str(text)).split()), 300)
