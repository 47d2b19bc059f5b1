"""What a card inherits: licence and base models of those a model was made of, by the same rules when it is made and published."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rsoup.errors import show

Card = Mapping[str, object]
"""The metadata of a model card."""

_REPO: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
_PINNED: Final = re.compile(rf"({_REPO.pattern.strip('^$')})@[0-9a-f]{{40}}(?:/.*)?")
_NO_LICENCE: Final = ("", "license", "licence", "unknown", "other-unknown")  # TRL writes `licence: license`
LICENCE_KEYS: Final = ("license", "license_name", "license_link")


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as a card names it: identifiers of the Hub, for `other` its name, and where it is to be read."""

    ids: tuple[str, ...]
    name: str | None = None
    link: str | None = field(default=None, compare=False)

    def fields(self) -> dict[str, object]:
        """The card's metadata that says it."""
        found = dict(zip(LICENCE_KEYS, (self.ids[0] if len(self.ids) == 1 else list(self.ids), self.name, self.link), strict=True))  # fmt: skip
        return {key: value for key, value in found.items() if value}

    def __str__(self) -> str:
        return show(" and ".join(self.ids) + (f" ({self.name})" if self.name else ""))


def licence_of(card: Card) -> Licence | None:
    """The licence a card names; None for none, and for a placeholder such as TRL's."""
    given = card.get("license")
    texts = given if isinstance(given, list) else [given]
    ids = tuple(t for text in texts if (t := str(text or "").strip().lower()) not in _NO_LICENCE)
    more = [str(value).strip() if (value := card.get(key)) else None for key in LICENCE_KEYS[1:]]
    return Licence(ids, *more) if ids else None


def licences_of(cards: Iterable[Card]) -> list[Licence]:
    """The different licences that cards name, sorted."""
    return sorted({found for card in cards if (found := licence_of(card)) is not None}, key=str)


@dataclass(frozen=True, slots=True)
class Inherited:
    """The licence of a new model, None where there is none or nobody chose; `differ` are those to choose from."""

    licence: Licence | None
    differ: tuple[str, ...] = ()
    note: str | None = None


def inherited(own: Sequence[Licence], bases: Sequence[Licence], asked: str | None) -> Inherited:
    """The licence that was asked for; else the one that all ingredients which have one agree on; else the bases'.

    `own` and `bases` hold different licences. Where they differ none is chosen.
    """
    if asked is not None:
        others = [one for one in own if one.ids != (asked,)]
        note = (
            f"the licence is {show(asked)}, as asked for; the ingredients' is {' or '.join(map(str, others))}"
        )
        return Inherited(Licence((asked,)), note=note if others else None)
    if own:
        return Inherited(own[0]) if len(own) == 1 else Inherited(None, tuple(map(str, own)))
    if len(bases) == 1:
        return Inherited(
            bases[0], note=f"the licence is the base model's: {bases[0]}; the ingredients name none"
        )
    return Inherited(None, tuple(map(str, bases)))


def base_models(rows: Sequence[tuple[str, Card]], base: tuple[str, Card] | None = None) -> list[str]:
    """The Hub's names of what a model was made of: (what a manifest calls a checkpoint, its card) in, no path out.

    A checkpoint of the Hub stands for itself, another one for the models its card says it was made of; where no
    checkpoint has a name, the base.
    """
    names = [name for row in rows for name in _known(*row)]
    if not names and base is not None:
        names = _known(*base)
    return list(dict.fromkeys(names))


def _known(checkpoint: str, card: Card) -> list[str]:
    return repos_in(checkpoint) or stated(card)


def stated(card: Card) -> list[str]:
    """The repositories that a card calls its base models; paths are left out."""
    found = card.get("base_model")
    return [
        name
        for name in (found if isinstance(found, list) else [found])
        if isinstance(name, str) and is_repo(name)
    ]


def is_repo(uri: str) -> bool:
    """Whether this is the name of a Hub repository rather than a path on this machine."""
    return bool(_REPO.match(uri)) and not os.path.exists(uri)


def repos_in(checkpoint: str) -> list[str]:
    """The Hub repositories in a checkpoint's name: `org/name`, or `org/name@commit/path`, with or without `hf://`, `+` between."""
    found = []
    for part in checkpoint.split("+"):
        pinned = _PINNED.fullmatch(part.removeprefix("hf://"))
        if pinned is not None:
            found.append(pinned[1])
        elif is_repo(part):
            found.append(part)
    return found
