"""The task: 8 × 8 digits as a contextual bandit, a reward per group of digits, and policies trained for mixtures of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.demo import digits
from rsoup.demo.train import new_policy, policy_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from rsoup.demo.digits import Digits

    State = dict[str, torch.Tensor]

TEST = 400  # images to choose λ by, and as many to report
BATCH = 256
RATE = 3e-4
GROUPS = {
    2: ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
    3: ((0, 1, 2), (3, 4, 5), (6, 7, 8, 9)),
    5: ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)),
}
"""Reward k pays for a right answer to the digits of group k; the paper's small, medium and large objects."""


@dataclass(frozen=True, slots=True)
class World:
    """The images of one seed: to learn from, to choose λ by, to report."""

    train: Digits
    select: Digits
    report: Digits


def world(seed: int) -> World:
    """The 1797 images in an order that depends on the seed: 997 to learn from, 400 each for select and report."""
    import torch

    order = torch.randperm(digits.load().labels.shape[0], generator=torch.Generator().manual_seed(seed))
    every = digits.load()[order]
    place = torch.arange(len(every))
    return World(every[place[: -2 * TEST]], every[place[-2 * TEST : -TEST]], every[place[-TEST:]])


def base(seed: int, steps: int) -> State:
    """A policy after `steps` of supervised learning; 300 are a good start, 60 a weak one."""
    import torch
    from torch.nn import functional

    generator = torch.Generator().manual_seed(seed + 1_000_003)
    policy = new_policy(generator)
    images = world(seed).train
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE * 10 / 3 if steps < 100 else RATE)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        optimizer.zero_grad()
        functional.cross_entropy(policy(batch.pixels), batch.labels).backward()
        optimizer.step()
    return policy.state_dict()


def fine_tuned(
    start: State, seed: int, preference: Sequence[float], steps: int, *, draw: int = 0, rate: float = RATE
) -> State:
    """REINFORCE from `start` on Σ μₖRₖ: a training for one reward (μ = eₖ), or for a mixture of them (MORL).

    `draw` is the training's own seed: what is sampled and in which order, on the same images.
    """
    import torch

    groups = GROUPS[len(preference)]
    pay = torch.zeros(10)
    for share, members in zip(preference, groups, strict=True):
        pay[list(members)] = share
    generator = torch.Generator().manual_seed(7919 * seed + draw)
    policy: nn.Module = policy_of(start)
    images = world(seed).train
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
    for _ in range(steps):
        batch = images[torch.randint(len(images), (BATCH,), generator=generator)]
        log_policy = policy(batch.pixels).log_softmax(dim=1)
        answer = torch.multinomial(log_policy.detach().exp(), 1, generator=generator)
        reward = (answer[:, 0] == batch.labels) * pay[batch.labels]
        optimizer.zero_grad()
        (-(reward * log_policy.gather(1, answer)[:, 0]).mean()).backward()
        optimizer.step()
    return policy.state_dict()


def rewards(state: State, images: Digits, count: int) -> dict[str, float]:
    """Per group k: the exact probability that an image of it is answered right, no sampling involved."""
    import torch

    with torch.no_grad():
        chances = policy_of(state)(images.pixels).double().softmax(dim=1)
    right = chances.gather(1, images.labels[:, None])[:, 0]
    return {
        f"r{k + 1}": float(right[torch.isin(images.labels, torch.tensor(members))].mean())
        for k, members in enumerate(GROUPS[count])
    }
