"""What a cell trains and measures: its trainings, and the sets of soups of them. Nothing here depends on torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

LENGTHS = (25, 100, 400)
MORL = 11
FINE = 41
BETA = Fraction(7, 10)
"""Bone Soup's share of the own reward in a backbone: the middle of the paper's 0.6, 0.7, 0.8, fixed before the runs."""
SCALES = (Fraction(3, 2), Fraction(2))
"""How far beyond the plain soup the scaled ones go, from the base."""
Mix = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Spec:
    """A cell: a seed, its number of rewards, the lengths of its trainings, the base's steps and the rate after it.

    Not `full`: plain soups, MORL, the base and Bone Soup alone.
    """

    group: str
    seed: int
    rewards: int = 2
    steps: tuple[int, ...] = LENGTHS
    base_steps: int = 300
    rate: float = 3e-4
    full: bool = True

    @property
    def name(self) -> str:
        """`n2-seed-03`."""
        return f"{self.group}-seed-{self.seed:02d}"


def specs(seeds: int, more: int) -> list[Spec]:
    """All cells, so that any first part of them is of use: seed by seed, what costs more or decides less at half the pace."""
    every = [(float(seed), Spec("n2", seed)) for seed in range(seeds)]
    for seed in range(more):
        every += [
            (seed + 0.5, Spec("strong", seed, base_steps=1200, full=False)),
            (2 * seed + 0.6, Spec("weak", seed, steps=(200,), base_steps=60, rate=3e-3, full=False)),
            (2 * seed + 0.7, Spec("fast", seed, steps=(200,), rate=3e-3, full=False)),
            (2 * seed + 1.8, Spec("n3", seed, 3)),
            (2 * seed + 1.9, Spec("n5", seed, 5)),
        ]
    return [spec for _, spec in sorted(every, key=lambda pair: pair[0])]


@dataclass(frozen=True, slots=True)
class Training:
    """A training from the base for Σ μₖRₖ; its checkpoints are CELL/NAME/checkpoint-STEPS."""

    name: str
    preference: Mix


def trainings(spec: Spec) -> list[Training]:
    """Experts, a second seed of each, MORL, and Bone Soup's backbones.

    For two rewards the backbones are MORL's trainings for μ = 0.3 and 0.7.
    """
    rewards = spec.rewards
    corners = lattice(rewards, 2)
    found = [Training(f"e{k}", corner) for k, corner in enumerate(corners, 1)]
    if spec.full and rewards < 5:
        found += [Training(f"e{k}b", corner) for k, corner in enumerate(corners, 1)]
    found += [Training(f"m{i}", p) for i, p in enumerate(preferences(rewards)) if p not in corners]
    if rewards > 2:
        found += [Training(f"h{k}", backbone(rewards, k)) for k in range(1, rewards + 1)]
    return found


def grid(rewards: int) -> list[Mix]:
    """λ of the soups: 21 of two experts, 28 of three, 46 of five (halves, thirds, and the centre)."""
    if rewards == 2:
        return lattice(2, 21)
    if rewards == 3:
        return lattice(3, 7)
    centre = (Fraction(1, rewards),) * rewards
    return list(dict.fromkeys([*lattice(rewards, 3), *lattice(rewards, 4), centre]))


def preferences(rewards: int) -> list[Mix]:
    """MORL's μ: eleven between two rewards; of three the lattice of thirds; of five vertices, middles and the centre.

    The corners come first where there are more than two rewards, then what is nearest to the centre.
    """
    if rewards == 2:
        return lattice(2, MORL)
    if rewards == 3:
        inner = [mix for mix in lattice(3, 4) if max(mix) < 1]
        return [*lattice(3, 2), *sorted(inner, key=max)]
    middles = [
        tuple(Fraction(i in pair, 2) for i in range(rewards)) for pair in combinations(range(rewards), 2)
    ]
    return [*lattice(rewards, 2), (Fraction(1, rewards),) * rewards, *middles]


def lattice(count: int, edge: int) -> list[Mix]:
    """Every λ in multiples of 1/(edge − 1), the first ingredient's share falling."""

    def parts(left: int, places: int) -> Iterator[tuple[int, ...]]:
        if places == 1:
            yield (left,)
            return
        for share in range(left, -1, -1):
            yield from ((share, *rest) for rest in parts(left - share, places - 1))

    return [tuple(Fraction(part, edge - 1) for part in found) for found in parts(edge - 1, count)]


def backbone(rewards: int, own: int) -> Mix:
    """What backbone `own` is paid: β for its own reward, the rest in equal parts."""
    other = (1 - BETA) / (rewards - 1)
    return tuple(BETA if k == own else other for k in range(1, rewards + 1))


def bone(preference: Mix) -> Mix:
    """λ = B⁻¹μ, B with β on its diagonal: shares of the backbones, negative ones too, Σλ = 1 (Bone Soup, ACL 2025)."""
    other = (1 - BETA) / (len(preference) - 1)
    return tuple((share - other) / (BETA - other) for share in preference)


@dataclass(frozen=True, slots=True)
class Soup:
    """One λ of a set: shares of trainings by name, what the set itself calls it (None: no λ), and its label."""

    shares: Mapping[str, Fraction]
    own: Mix | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """A set of soups, and how many trainings of an expert it took."""

    trainings: int
    soups: Sequence[Soup]


def sets(spec: Spec) -> dict[str, Group]:
    """Every set of a cell but the ensemble."""
    rewards = spec.rewards
    numbers = range(1, rewards + 1)
    experts = [f"e{k}" for k in numbers]
    mixes = grid(rewards)
    wanted = preferences(rewards)
    corners = lattice(rewards, 2)
    morl = [experts[corners.index(p)] if p in corners else f"m{i}" for i, p in enumerate(wanted)]
    alone = [Soup({name: Fraction(1)}, None, _said(p)) for name, p in zip(morl, wanted, strict=True)]
    backbones = [f"h{k}" if rewards > 2 else morl[wanted.index(backbone(2, k))] for k in numbers]
    found = {
        "soups": Group(rewards, _mixed(experts, mixes)),
        "morl": Group(len(wanted), alone),
        "base-alone": Group(0, [Soup({}, None, "base")]),
        "bone": Group(rewards, [_soup(backbones, bone(mix), mix) for mix in mixes]),
    }
    if not spec.full:
        return found
    if rewards < 5:
        found["groups"] = Group(2 * rewards, _grouped([(f"e{k}", f"e{k}b") for k in numbers], mixes))
    if rewards == 2:
        for scale in SCALES:
            soups = [_soup(experts, tuple(scale * share for share in mix), mix) for mix in mixes]
            found[f"scaled-{float(scale)}"] = Group(rewards, soups)
        found["between"] = Group(2, _mixed(experts, [mix for mix in lattice(2, FINE) if mix not in mixes]))
        found["model-soups"] = Group(2, _mixed(["e1", "e1b"], lattice(2, 5)))
        found["init"] = Group(2, _mixed(["i1", "i2"], mixes))
        found["waypoint"] = Group(3, list(_path(("e1", f"m{MORL // 2}", "e2"), len(mixes))))
    return found


def _mixed(names: Sequence[str], mixes: Sequence[Mix]) -> list[Soup]:
    return [_soup(names, mix, mix) for mix in mixes]


def _soup(names: Sequence[str], shares: Mix, own: Mix) -> Soup:
    return Soup({name: share for name, share in zip(names, shares, strict=True) if share}, own)


def _grouped(groups: Sequence[Sequence[str]], mixes: Sequence[Mix]) -> list[Soup]:
    return [
        Soup(
            {name: share / len(group) for share, group in zip(mix, groups, strict=True) if share for name in group},
            mix,
        )
        for mix in mixes
    ]  # fmt: skip


def _path(stations: Sequence[str], count: int) -> Iterator[Soup]:
    """`count` points from the first through the others to the last, equally many on each leg."""
    legs = len(stations) - 1
    for i in range(count):
        place = Fraction(i * legs, count - 1)
        leg = min(int(place), legs - 1)
        share = place - leg
        shares = {stations[leg]: 1 - share, stations[leg + 1]: share}
        yield Soup({name: value for name, value in shares.items() if value}, None, f"{float(place / legs):g}")


def _said(preference: Mix) -> str:
    if len(preference) == 2:
        return f"μ {float(preference[1]):g}"
    return "μ " + ",".join(f"{float(share):.2g}" for share in preference)
