"""The task: 8 × 8 digits as a contextual bandit, a reward per group of digits, and policies trained for mixtures of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.demo import digits
from rsoup.demo.train import new_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from rsoup.demo.digits import Digits

    State = Mapping[str, torch.Tensor]

TEST = 400  # images to choose λ by, and as many to report
BATCH = 256
RATE = 3e-4
GROUPS = {
    2: ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
    3: ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9)),
    5: ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
}
"""Reward k is a right answer to the digits of group k, as the paper's small, medium and large objects."""


@dataclass(frozen=True, slots=True)
class World:
    """The images of one seed: to learn from, to choose λ by, to report."""

    train: Digits
    select: Digits
    report: Digits


@dataclass(frozen=True, slots=True)
class Lane:
    """One training among several that run side by side: where it begins, and what it is paid for, Σ μₖRₖ."""

    start: State
    preference: tuple[float, ...]


def world(seed: int) -> World:
    """The 1797 images in an order that depends on the seed: 997 to learn from, 400 each for select and report."""
    import torch

    every = digits.load()
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    return World(every[order[: -2 * TEST]], every[order[-2 * TEST : -TEST]], every[order[-TEST:]])


def base(seed: int, steps: int) -> State:
    """A policy after `steps` of supervised learning; 300 are a good start, 60 a weak one."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed + 1_000_003)
    policy = new_policy(generator)
    images = world(seed).train
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        optimizer.zero_grad()
        functional.cross_entropy(policy(batch.pixels), batch.labels).backward()
        optimizer.step()
    return policy.state_dict()


def fine_tuned(
    lanes: Sequence[Lane], seed: int, steps: Sequence[int], *, draw: int = 0, rate: float = RATE
) -> dict[int, list[State]]:
    """Per number of steps the policies of all lanes: REINFORCE from each lane's start on its Σ μₖRₖ, without a baseline.

    Side by side in one batched network, which is the same as one after the other: every lane has parameters, moments
    of Adam, images and answers of its own. A training of 100 steps is one of 400 after 100. `draw` names the
    random numbers.
    """
    import torch

    generator = torch.Generator().manual_seed(7919 * seed + draw)
    images = world(seed).train
    pay = torch.stack([_pay(lane.preference) for lane in lanes])
    names = list(lanes[0].start)
    stacked = {name: torch.stack([lane.start[name] for lane in lanes]).requires_grad_(True) for name in names}
    optimizer = torch.optim.Adam(stacked.values(), lr=rate)
    row = torch.arange(len(lanes))[:, None]
    found: dict[int, list[State]] = {}
    for step in range(1, max(steps) + 1):
        chosen = torch.randint(len(images), (len(lanes), BATCH), generator=generator)
        labels = images.labels[chosen]
        log_policy = _logits(stacked, images.pixels[chosen]).log_softmax(dim=2)
        chances = log_policy.detach().exp().flatten(0, 1)
        answers = torch.multinomial(chances, 1, generator=generator).view(len(lanes), BATCH)
        reward = (answers == labels) * pay[row, labels]
        optimizer.zero_grad()
        taken = log_policy.gather(2, answers[:, :, None])[:, :, 0]
        (-(reward * taken).mean(dim=1).sum()).backward()
        optimizer.step()
        if step in steps:
            found[step] = [
                {name: stacked[name].detach()[i].clone() for name in names} for i in range(len(lanes))
            ]
    return found


def _pay(preference: Sequence[float]) -> torch.Tensor:
    """What a right answer to each digit pays, so that the mean over all digits is Σ μₖ·(mean over group k)/N."""
    import torch

    pay = torch.zeros(10)
    for share, members in zip(preference, GROUPS[len(preference)], strict=True):
        pay[list(members)] = share * 10 / (len(preference) * len(members))
    return pay


def _logits(stacked: State, pixels: torch.Tensor) -> torch.Tensor:
    """(lanes, batch, 64) → (lanes, batch, 10): `policy_of` of every lane."""
    import torch

    hidden = pixels
    layers = sorted({name.rsplit(".", 1)[0] for name in stacked})
    for layer in layers:
        weight, bias = stacked[f"{layer}.weight"], stacked[f"{layer}.bias"]
        hidden = torch.baddbmm(bias[:, None, :], hidden, weight.transpose(1, 2))
        hidden = hidden if layer == layers[-1] else hidden.relu()
    return hidden


def outputs(state: State, images: Digits) -> torch.Tensor:
    """The policy's logits, (images, 10), float64."""
    import torch

    with torch.no_grad():
        return _logits({name: tensor[None] for name, tensor in state.items()}, images.pixels[None])[
            0
        ].double()


def rewards(logits: torch.Tensor, images: Digits, count: int) -> dict[str, float]:
    """Per group k: the exact probability that an image of it is answered right, no sampling involved."""
    import torch

    right = logits.softmax(dim=1).gather(1, images.labels[:, None])[:, 0]
    return {
        f"r{k + 1}": float(right[torch.isin(images.labels, torch.tensor(members))].mean())
        for k, members in enumerate(GROUPS[count])
    }


def scores(logits: Mapping[str, torch.Tensor], images: World, count: int) -> dict[str, float]:
    """{"r1": …, "r1_report": …, …} from the logits of the select and the report images."""
    select = rewards(logits["select"], images.select, count)
    report = rewards(logits["report"], images.report, count)
    return select | {f"{name}_report": value for name, value in report.items()}
