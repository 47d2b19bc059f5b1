"""What verifying a soup found: the levels that were asked, what each proves, what does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rsoup.errors import MismatchError, Problem

SHOWN = 5
CAVEAT = "None of this proves that the model is good, or harmless."


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be: where, what, and for a tensor `data` (element, values, ulps)."""

    where: str
    what: str
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Level:
    """A question that was asked: its number and name, what a yes proves, what speaks against it.

    `more` are lines on what the yes is worth, `data` figures (the nonce, blocks, tensors) by name. `load` is no level of proof and has
    no number.
    """

    number: int | None
    name: str
    proves: str
    differences: tuple[Difference, ...] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    more: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A soup held against its manifest, and against its ingredients where they were given."""

    out: str
    nbytes: int
    levels: tuple[Level, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether every level that was asked holds."""
        return all(level.holds for level in self.levels)

    def check(self) -> None:
        """Raise MismatchError E0901 with the first differences unless every level holds."""
        if self.holds:
            return
        failed = [level for level in self.levels if not level.holds]
        found = [difference for level in failed for difference in level.differences]
        error = MismatchError(
            "E0901",
            f"the soup is not what its manifest says: {', '.join(level.name for level in failed)}",
            where=self.out,
            details=tuple(Problem(difference.where, difference.what) for difference in found[:SHOWN]),
            hint="fetch it again, or make it again with rsoup merge",
        )
        error.result = self
        raise error
