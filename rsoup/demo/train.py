"""Three policies that read digits: a base, and two experts by REINFORCE, one for each reward."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.demo import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

    from rsoup.demo.digits import Digits

    Weights = Mapping[str, torch.Tensor]
    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits, labels -> scalar

HIDDEN = 64
HELD_OUT = 500
BASE_STEPS = 300
EXPERT_STEPS = 100  # more: better experts, but a front that sags below the chord near its ends
BATCH = 256
LEARNING_RATE = 3e-4
CONFIG = {
    "model_type": "rsoup-demo-mlp",
    "input_size": digits.SIDE**2,
    "hidden_size": HIDDEN,
    "num_labels": digits.CLASSES,
}
GROUPS = {"low": (0, 4), "high": (5, 9)}  # reward k pays for the digits from the first to the last


@dataclass(frozen=True, slots=True)
class Policies:
    """The state dicts of the `base` and of each expert by its group's name, and the `held_out` digits."""

    base: Weights
    experts: Mapping[str, Weights]
    held_out: Digits


def train(seed: int, *, expert_steps: int = EXPERT_STEPS, progress: Callable[[str], None]) -> Policies:
    """A base by supervised steps, then from it one expert per reward by REINFORCE.

    `expert_steps` are the REINFORCE steps of each expert. The result depends on nothing but the
    arguments (0 ≤ seed < 2⁶³), the machine and the version of torch; torch's own generator, and
    every other global state, stay as they are. `progress` gets one line before each training.

    The two rewards mirror "diverse object sizes" of Rewarded soups (NeurIPS 2023), section 3.4.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    known, held_out = digits.split(digits.load(), held_out=HELD_OUT, generator=generator)
    base = new_policy(generator)
    progress(f"base: {BASE_STEPS} supervised steps on {len(known)} digits")
    with _one_thread():
        _descend(base, known, _cross_entropy, steps=BASE_STEPS, generator=generator)
    experts = {}
    for name, (first, last) in GROUPS.items():
        progress(f"{name}: {expert_steps} REINFORCE steps, rewarded for {first}–{last}")
        expert = policy_of(base.state_dict())
        loss = _reinforce(first, last, generator)
        with _one_thread():
            _descend(expert, known, loss, steps=expert_steps, generator=generator)
        experts[name] = expert.state_dict()
    return Policies(base.state_dict(), experts, held_out)


def policy_of(weights: Weights) -> nn.Sequential:
    """The policy with a copy of these weights: (n, 64) pixels -> (n, 10) logits, float32.

    Three linear layers 64-64-64-10 with ReLU between: `layers.0`, `layers.2` and `layers.4`.
    Raises RuntimeError where names or shapes are others.
    """
    from torch import nn

    pixels, answers = digits.SIDE**2, digits.CLASSES
    stack = nn.Sequential(
        nn.Linear(pixels, HIDDEN, device="meta"),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN, device="meta"),
        nn.ReLU(),
        nn.Linear(HIDDEN, answers, device="meta"),
    )
    policy = nn.Sequential(OrderedDict(layers=stack))
    policy.to_empty(device="cpu").float().load_state_dict(weights)
    return policy


def new_policy(generator: torch.Generator) -> nn.Sequential:
    """An untrained policy: every parameter of a layer with k inputs uniform in ±1/√k, torch's default."""
    import torch

    widths = [digits.SIDE**2, HIDDEN, HIDDEN, digits.CLASSES]
    weights: dict[str, torch.Tensor] = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            uniform = torch.rand(shape, generator=generator, dtype=torch.float32)
            weights[f"layers.{2 * i}.{part}"] = (2 * uniform - 1) / inputs**0.5
    return policy_of(weights)


def rewards(weights: Weights, held_out: Digits) -> dict[str, float]:
    """E[π(y|x)] over the digits of each group: the exact expected reward of the stochastic policy, 0..1.

    By group's name, in float64. Reward k is 1 if the sampled answer is right and the digit is of
    group k, else 0; it is averaged over the digits of group k, where alone it can be earned.
    Nothing is sampled, so there is no noise beyond the choice of the held-out digits.
    """
    answers = _answers(weights, held_out)
    right = answers.gather(1, held_out.labels[:, None])[:, 0]
    return {
        name: float(right[(first <= held_out.labels) & (held_out.labels <= last)].mean())
        for name, (first, last) in GROUPS.items()
    }


def accuracy(weights: Weights, held_out: Digits) -> float:
    """The share of digits whose most probable answer is right, 0..1."""
    right = _answers(weights, held_out).argmax(dim=1) == held_out.labels
    return float(right.double().mean())


def _answers(weights: Weights, held_out: Digits) -> torch.Tensor:
    """π(·|x): (n, 10) float64, each row sums to 1."""
    import torch

    with _one_thread(), torch.no_grad():
        logits = policy_of(weights)(held_out.pixels)
        assert isinstance(logits, torch.Tensor)
        return logits.double().softmax(dim=1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """torch computes on one thread inside the block, and on as many as before after it.

    Layers this small gain nothing from a second thread, and lose much (50 times, measured) where it
    waits for a core that another program holds; the bits no longer depend on the number of cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """−mean log π(y|x)."""
    from torch.nn import functional

    return functional.cross_entropy(logits, labels)


def _reinforce(first: int, last: int, generator: torch.Generator) -> Loss:
    """−mean R(x, a) log π(a|x) with a ~ π(·|x), whose gradient is unbiased for −∇E[R].

    R = 1 if a is the label and first ≤ label ≤ last, else 0; no baseline, one sample per image.
    Williams (1992), "Simple statistical gradient-following algorithms", section 4.
    """
    import torch

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        log_policy = logits.log_softmax(dim=1)
        sampled = torch.multinomial(log_policy.detach().exp(), 1, generator=generator)
        reward = (sampled[:, 0] == labels) & (first <= labels) & (labels <= last)
        return -(reward * log_policy.gather(1, sampled)[:, 0]).mean()

    return loss


def _descend(policy: nn.Module, known: Digits, loss: Loss, *, steps: int, generator: torch.Generator) -> None:
    """`steps` of Adam on batches drawn with replacement; changes `policy` in place."""
    import torch

    optimizer = torch.optim.Adam(policy.parameters(), lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(steps):
            batch = known[torch.randint(len(known), (BATCH,), generator=generator)]
            optimizer.zero_grad()
            torch.autograd.backward(loss(policy(batch.pixels), batch.labels))
            optimizer.step()
