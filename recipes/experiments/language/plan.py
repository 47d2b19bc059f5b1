"""What a seed trains and measures: its trainings, and the sets of soups of them. Nothing here depends on torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

Mix = tuple[Fraction, ...]
SPREAD = (0.8, 0.07)
"""Standard deviations of the rewards among the texts' own completions: mixtures are of rewards divided by them."""
GRID = 21
"""Values of λ for plain soups, as in the paper."""
EQUAL = 11
"""Values of λ for attempts at better soups: as many evaluations as there are trainings for mixed rewards."""
COARSE = 6
"""Values of λ for averaged factors, which are evaluated as files."""
ALONG = 5
"""Values of λ at each checkpoint along training."""
BETAS = (Fraction(7, 10), Fraction(8, 10))
"""Bone Soup's share of the own reward in a backbone; 0.7 was named as the one that counts before the runs."""
SCALE = Fraction(3, 2)
RANKS = (1, 2, 4, 8, 12)
MORL = ("lora-1", *(f"morl-{k:02d}" for k in range(1, 10)), "lora-2")
"""In order of μ, the second reward's share."""
PAIRS = {"lora": ("lora-1", "lora-2"), "other": ("lora-1", "lora-2-other")}
ADAPTERS = (*MORL, "lora-2-other", "from-1", "from-2")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained, and on how many prompts λ is chosen; as many are reported on."""

    hidden: int = 96
    layers: int = 2
    base_steps: int = 600
    base_batch: int = 32
    base_rate: float = 3e-3
    steps: int = 48
    completions: int = 64
    group: int = 8
    rank: int = 8
    lora_rate: float = 2e-3
    full_rate: float = 4e-4
    beta: float = 0.1
    prompts: int = 64


SIZES = {
    "full": Size(),
    "tiny": Size(
        hidden=32, layers=1, base_steps=20, base_batch=8, steps=4, completions=8, group=4, rank=2, prompts=8,
        lora_rate=0.03, full_rate=0.01,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Training:
    """One training: its rewards' shares, what it starts from, and how; lengths are in those of an expert's training.

    `begin` numbers the adapter's initialisation, `draw` the training's own seed, `save` is the distance of checkpoints.
    """

    name: str
    shares: tuple[float, float]
    start: str = "base"
    full: bool = False
    begin: int = 0
    draw: int = 0
    length: Fraction = Fraction(1)
    save: Fraction | None = None


def trainings() -> Iterator[Training]:
    """In the order in which they are of use: experts, mixtures, experts that begin with half a training for both.

    ½ + 2 · ¾: these two cost as much as two experts.
    """
    corners = ((1.0, 0.0), (0.0, 1.0))
    for k, corner in enumerate(corners):
        yield Training(f"lora-{k + 1}", corner, draw=k, save=Fraction(1, 4))
    yield Training("lora-2-other", corners[1], begin=1, draw=1)
    for k, corner in enumerate(corners):
        yield Training(f"full-{k + 1}", corner, full=True, draw=k)
    for number in sorted(range(1, 10), key=lambda number: abs(number - 5)):
        half = Fraction(1, 2) if number == 5 else None
        shares = ((10 - number) / 10, number / 10)
        yield Training(f"morl-{number:02d}", shares, draw=10 + number, save=half)
    for k, corner in enumerate(corners):
        yield Training(f"from-{k + 1}", corner, start="morl-05/half", draw=30 + k, length=Fraction(3, 4))


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


def line(values: int) -> list[Mix]:
    """λ from (1, 0) to (0, 1) in equal steps."""
    return [(Fraction(values - 1 - k, values - 1), Fraction(k, values - 1)) for k in range(values)]


def bone(preference: Mix, beta: Fraction) -> Mix:
    """λ = B⁻¹μ, B with β on its diagonal and 1 − β beside it: negative shares too, Σλ = 1 (Bone Soup, ACL 2025)."""
    return tuple((share - (1 - beta)) / (2 * beta - 1) for share in preference)


def sets(grid: int = GRID, equal: int = EQUAL) -> dict[str, dict[str, Group]]:
    """Every set of soups of adapters, by group of cells (`lora`: one initialisation, `other`: two)."""
    found: dict[str, dict[str, Group]] = {}
    morl = Group(len(MORL), [Soup({n: Fraction(1)}, None, f"μ {k / 10:g}") for k, n in enumerate(MORL)])
    for group, pair in PAIRS.items():
        found[group] = {"soups": Group(2, _mixed(pair, line(grid))), "morl": morl}
    lora = found["lora"]
    lora["soups-equal"] = Group(2, _mixed(PAIRS["lora"], line(equal)))
    lora["base-alone"] = Group(0, [Soup({}, None, "base")])
    for beta in BETAS:
        own = round(10 * (1 - beta))
        pair = (f"morl-{own:02d}", f"morl-{10 - own:02d}")
        lora[f"bone-{float(beta):g}"] = Group(2, [_soup(pair, bone(mix, beta), mix) for mix in line(equal)])
    lora["waypoint"] = Group(3, list(_path(("lora-1", "morl-05", "lora-2"), equal)))
    lora["init"] = Group(2, _mixed(("from-1", "from-2"), line(equal)))
    scaled = [_soup(PAIRS["lora"], tuple(SCALE * share for share in mix), mix) for mix in line(equal)]
    lora[f"scaled-{float(SCALE):g}"] = Group(2, scaled)
    return found


def _mixed(names: Sequence[str], mixes: Sequence[Mix]) -> list[Soup]:
    return [_soup(names, mix, mix) for mix in mixes]


def _soup(names: Sequence[str], shares: Mix, own: Mix) -> Soup:
    return Soup({name: share for name, share in zip(names, shares, strict=True) if share}, own)


def _path(stations: Sequence[str], count: int) -> Iterator[Soup]:
    """`count` points from the first through the others to the last, equally many on each leg."""
    legs = len(stations) - 1
    for i in range(count):
        place = Fraction(i * legs, count - 1)
        leg = min(int(place), legs - 1)
        share = place - leg
        shares = {stations[leg]: 1 - share, stations[leg + 1]: share}
        yield Soup({name: value for name, value in shares.items() if value}, None, f"{float(place / legs):g}")
