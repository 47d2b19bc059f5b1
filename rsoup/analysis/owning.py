"""Which ingredient is whose expert, and which point is the base."""

from __future__ import annotations

from collections.abc import Mapping

from rsoup.analysis.data import Data
from rsoup.front.transfer import Owners, owners_of


def owners(data: Data, given: Mapping[str, str] | None = None) -> Owners | None:
    """Which ingredient is whose expert; None where not every ingredient is measured alone.

    Raises UsageError E0258 for a `given` name that is not there.
    """
    rows = [data.values[i] for i in data.experts if i is not None]
    if len(rows) < max(2, len(data.ingredients)):
        return None
    return owners_of(data.ingredients, data.rewards, rows, data.maximise, given)


def assigned(data: Data, given: Mapping[str, str] | None = None) -> tuple[int, ...] | None:
    """Per reward its own ingredient, every one once; None where that is not so."""
    found = owners(data, given)
    order = () if found is None else tuple(i for i in found.of if i is not None)
    if len(order) != len(data.rewards) or sorted(order) != list(range(len(data.ingredients))):
        return None
    return order


def base_of(data: Data, name: str | None = None) -> int | None:
    """The index of the base's own point: the one of this name, or the one whose soup is nothing but the base."""
    for index, row in enumerate(data.rows):
        if row.name == name or (
            name is None and row.mix is not None and (row.scale == 0 or sum(row.mix) == 0)
        ):
            return index
    return None
