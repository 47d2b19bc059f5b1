"""Measures: the records of a survey summed over tensors, layers and all: distances, cosines, shares. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rsoup.family.survey import TensorRecord
from rsoup.gram import Gram, unfold
from rsoup.recipe import layer_of

RESOLUTION: Final = 1e-7  # two updates nearer than this, for their length, cannot be told from equal ones

Maybe = float | None
Row = tuple[Maybe, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """How far the checkpoints moved in some tensors: one, a layer, or all of them.

    `relative[i]` = ‖θᵢ − θ₀‖/‖θ₀‖, None where unknown, infinite for a reference of zeros; `changed[i]` the
    share of elements with other bits; `norm_ratio[i]` = ‖θᵢ‖/‖θ₀‖. All empty without a base.
    """

    name: str
    elements: int
    absolute: Row = ()
    relative: Row = ()
    changed: tuple[float, ...] = ()
    norm_ratio: Row = ()
    cosine: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything that was measured; i and j count the checkpoints in order, the base is none of them.

    `pair_absolute[i][j]` = ‖θᵢ − θⱼ‖, `pair_relative` = that / √(‖θᵢ‖‖θⱼ‖), `norm[i]` = ‖θᵢ‖. Only with a base:
    `total`, `layers`, `tensors`, `cosine[i][j]` = cos(δᵢ, δⱼ), `unique[i]` the share changed by i alone,
    `moved` by any, `shared` by all, `conflicts` the share of the elements moved by two or more in opposite
    directions, `norm_ratio` = ‖Σδ‖/Σ‖δ‖. `nonfinite` lists (checkpoint or the base as len(names), tensor, elements),
    `carried` elements that are not finite and have the same bits everywhere, `below_precision` (checkpoint,
    tensor) whose whole delta is what rounding to the narrower dtype of the two makes, `copied` the tensors that
    are no floats and differ somewhere.
    """

    names: tuple[str, ...]
    elements: int
    norm: Row
    pair_absolute: tuple[Row, ...]
    pair_relative: tuple[Row, ...]
    total: Part | None = None
    layers: tuple[Part, ...] = ()
    tensors: tuple[Part, ...] = ()
    cosine: tuple[Row, ...] = ()
    unique: tuple[float, ...] = ()
    moved: float | None = None
    shared: float | None = None
    conflicts: float | None = None
    norm_ratio: float | None = None
    nonfinite: tuple[tuple[int, str, int], ...] = ()
    carried: int = 0
    below_precision: tuple[tuple[int, str], ...] = ()
    copied: tuple[str, ...] = ()


_GROUPS = (
    ("embeddings", re.compile(r"embed(?!_out)|(?:^|\.)(?:wte|wpe|shared)\.|word_embeddings|position_ids|patch_proj")),
    ("head", re.compile(r"lm_head|embed_out|(?:^|\.)(?:v_head|score|value_head|reward_head|classifier|regression_head|qa_outputs|head|pooler|fc_out)(?:\.|$)")),
    ("norms", re.compile(r"norm|(?:^|\.)ln_[a-z0-9]+\.")),
)  # fmt: skip


def group_of(tensor: str) -> str:
    """`layer 3` by the first number in its name; else `embeddings`, `head`, `norms` or `other`."""
    layer = layer_of(tensor)
    if layer is not None:
        return f"layer {layer}"
    return next((name for name, pattern in _GROUPS if pattern.search(tensor.lower())), "other")


def group_order(group: str) -> tuple[int, int]:
    """Where a group stands among others: embeddings, layers by number, norms, head, the rest."""
    places = {"embeddings": 0, "norms": 2, "head": 3, "other": 4}
    return (1, int(group[6:])) if group.startswith("layer ") else (places[group], 0)


def measure(records: Sequence[TensorRecord], names: Sequence[str], *, base: bool) -> Measures:
    """What the records of a survey say; with `base` its reference is θ₀, else the first of `names`."""
    floats = [record for record in records if record.products or not record.numel]
    size = len(names) if base else len(names) - 1
    gram = _total(floats, size + 1)
    elements = sum(record.numel for record in floats)
    names = tuple(names)
    nonfinite = _nonfinite(floats, len(names), base=base)
    carried = sum(record.carried for record in floats)
    copied = tuple(record.name for record in records if not record.products and any(record.changed))
    if not base:
        norm, absolute, relative = _pairs(_origin_first(gram))
        return Measures(
            names, elements, norm, absolute, relative, nonfinite=nonfinite, carried=carried, copied=copied
        )
    norm, absolute, relative = _pairs(gram)
    groups: dict[str, list[TensorRecord]] = {}
    for record in floats:
        groups.setdefault(group_of(record.name), []).append(record)
    moved = sum(record.moved for record in floats)
    several = moved - sum(sum(record.unique) for record in floats)
    conflicts = sum(record.conflicts for record in floats)
    return Measures(
        names, elements, norm, absolute, relative,
        total=_part("all", floats, size),
        layers=tuple(_part(name, groups[name], size) for name in sorted(groups, key=group_order)),
        tensors=tuple(_part(record.name, [record], size) for record in floats),
        cosine=_cosines(gram, size),
        unique=tuple(_share(sum(r.unique[i] for r in floats if r.unique), elements) for i in range(size)),
        moved=_share(moved, elements),
        shared=_share(sum(record.shared for record in floats), elements),
        conflicts=_share(conflicts, several),
        norm_ratio=_norm_ratio(gram, size),
        nonfinite=nonfinite,
        carried=carried,
        below_precision=tuple((i, r.name) for r in floats for i, below in enumerate(r.rounding) if below),
        copied=copied,
    )  # fmt: skip


def _total(records: Sequence[TensorRecord], rows: int) -> Gram:
    total = [0.0] * (rows * (rows + 1) // 2)
    for record in records:
        if record.products:
            total = [a + b for a, b in zip(total, record.products, strict=True)]
    return unfold(total, rows)


def _origin_first(gram: Gram) -> Gram:
    """The Gram matrix of (0, δ₂ …, θ₁) from that of (δ₂ …, θ₁): the reference is the first checkpoint itself."""
    return [[0.0] * (len(gram) + 1), *([0.0, *row] for row in gram)]


def _nonfinite(
    records: Sequence[TensorRecord], count: int, *, base: bool
) -> tuple[tuple[int, str, int], ...]:
    """(checkpoint, tensor, elements), the elements that are alike everywhere left out."""
    found = []
    for record in records:
        for row, number in enumerate(record.nonfinite):
            last = row == len(record.nonfinite) - 1
            checkpoint = (count if last else row) if base else (0 if last else row + 1)
            if number > record.carried:
                found.append((checkpoint, record.name, number - record.carried))
    return tuple(sorted(found, key=lambda item: item[0]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def root(square: float) -> Maybe:
    """√square, 0 for one that rounding made negative; None where it is not finite."""
    return math.sqrt(max(0.0, square)) if math.isfinite(square) else None


def ratio(part: Maybe, whole: Maybe) -> Maybe:
    """part/whole: infinite for something of nothing, 0 for nothing of nothing, None where one is unknown."""
    if part is None or whole is None:
        return None
    return part / whole if whole else (math.inf if part else 0.0)


def _part(name: str, records: Sequence[TensorRecord], size: int) -> Part:
    gram = _total(records, size + 1)
    elements, base = sum(record.numel for record in records), root(gram[-1][-1])
    absolute = tuple(root(gram[i][i]) for i in range(size))
    return Part(
        name, elements, absolute, tuple(ratio(value, base) for value in absolute),
        tuple(_share(sum(r.changed[i] for r in records if r.changed), elements) for i in range(size)),
        tuple(ratio(root(gram[i][i] + 2 * gram[i][-1] + gram[-1][-1]), base) for i in range(size)),
        _cosines(gram, size),
    )  # fmt: skip


def _pairs(gram: Gram) -> tuple[Row, tuple[Row, ...], tuple[Row, ...]]:
    """(‖θᵢ‖, ‖θᵢ − θⱼ‖, ‖θᵢ − θⱼ‖/√(‖θᵢ‖‖θⱼ‖)) of a Gram matrix over (δ…, θ₀)."""
    size = range(len(gram) - 1)
    norm = tuple(root(gram[i][i] + 2 * gram[i][-1] + gram[-1][-1]) for i in size)

    def distance(i: int, j: int) -> Maybe:
        scale = gram[i][i] + gram[j][j]
        square = scale - 2 * gram[i][j]
        return 0.0 if i == j or abs(square) <= scale * RESOLUTION**2 else root(square)

    def between(i: int, j: int) -> Maybe:
        a, b = norm[i], norm[j]
        return None if a is None or b is None else math.sqrt(a) * math.sqrt(b)

    absolute = tuple(tuple(distance(i, j) for j in size) for i in size)
    relative = tuple(tuple(ratio(absolute[i][j], between(i, j)) for j in size) for i in size)
    return norm, absolute, relative


def _cosines(gram: Gram, size: int) -> tuple[Row, ...]:
    def cosine(i: int, j: int) -> Maybe:
        if not all(0.0 < gram[k][k] < math.inf for k in (i, j)):
            return None
        if i == j:
            return 1.0
        return max(-1.0, min(1.0, gram[i][j] / math.sqrt(gram[i][i]) / math.sqrt(gram[j][j])))

    return tuple(tuple(cosine(i, j) for j in range(size)) for i in range(size))


def _norm_ratio(gram: Gram, size: int) -> Maybe:
    whole = math.fsum(row[j] for row in gram[:size] for j in range(size))
    lengths = math.fsum(math.sqrt(gram[i][i]) for i in range(size))
    return math.sqrt(max(0.0, whole)) / lengths if 0.0 < lengths < math.inf and math.isfinite(whole) else None
