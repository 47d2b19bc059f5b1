"""Distances of real networks beside what they are for: the loss barrier on the straight line between them.

    python benchmarks/calibrate_distances.py

Trains a base, fine-tunes of it on different data, at several lengths and learning rates, a second network from
another seed, and a permuted copy; MLPs and a CNN on the digits in rsoup/demo, a small transformer on the source
of Python's own library. Prints a Markdown table. Takes some minutes on one core; the same numbers each time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from rsoup.demo import digits

Weights = dict[str, torch.Tensor]
Batches = Callable[[torch.Generator], tuple[torch.Tensor, torch.Tensor]]
POINTS = [i / 10 for i in range(11)]
CONTEXT = 48
SYMBOLS = 128


@dataclass(frozen=True)
class Task:
    """A network, its data: `base` and two `parts` to train on, `held_out` to be judged on; and how to permute it."""

    name: str
    start: Callable[[int], Weights]
    forward: Callable[[Weights, torch.Tensor], torch.Tensor]
    base: Batches
    parts: tuple[Batches, Batches]
    held_out: tuple[torch.Tensor, torch.Tensor]
    permuted: Callable[[Weights, torch.Generator], Weights]
    rate: float
    base_steps: int
    tunings: tuple[tuple[int, float], ...]  # (steps, learning rate)


# --- networks: plain functions of a dict of tensors -------------------------------------------------------


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Weights:
    """Matrices uniform in ±√(3/inputs), biases 0, scales of norms 1."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            found[name] = torch.ones(shape) if name.endswith("norm") else torch.zeros(shape)
        else:
            size = math.sqrt(3 / math.prod(shape[1:]))
            found[name] = (2 * torch.rand(shape, generator=generator) - 1) * size
    return found


def mlp(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Two hidden layers with ReLU."""
    for i in (0, 1):
        x = (x @ w[f"{i}.weight"].T + w[f"{i}.bias"]).relu()
    return x @ w["2.weight"].T + w["2.bias"]


def mlp_shapes(hidden: int) -> dict[str, tuple[int, ...]]:
    """64 pixels, two hidden layers, 10 answers."""
    widths = [64, hidden, hidden, 10]
    return {
        f"{i}.{kind}": (b, a) if kind == "weight" else (b,)
        for i, (a, b) in enumerate(itertools.pairwise(widths))
        for kind in ("weight", "bias")
    }


def permuted_chain(w: Weights, generator: torch.Generator) -> Weights:
    """Every hidden unit (or channel) of a chain of layers at another place: the same function."""
    new = dict(w)
    for i in (0, 1):
        order = torch.randperm(len(w[f"{i}.bias"]), generator=generator)
        new[f"{i}.weight"], new[f"{i}.bias"] = new[f"{i}.weight"][order], new[f"{i}.bias"][order]
        after = new[f"{i + 1}.weight"]
        new[f"{i + 1}.weight"] = after.view(len(after), len(order), -1)[:, order].reshape(after.shape)
    return new


def cnn(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Two convolutions with ReLU, the second halves the picture; then one linear layer."""
    x = functional.conv2d(x.view(-1, 1, 8, 8), w["0.weight"], w["0.bias"], padding=1).relu()
    x = functional.conv2d(x, w["1.weight"], w["1.bias"], padding=1, stride=2).relu()
    return x.flatten(1) @ w["2.weight"].T + w["2.bias"]


CNN_SHAPES = {
    "0.weight": (16, 1, 3, 3), "0.bias": (16,), "1.weight": (32, 16, 3, 3), "1.bias": (32,), "2.weight": (10, 512), "2.bias": (10,),
}  # fmt: skip


def transformer(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Two blocks of attention and MLP with RMS norms; learnt positions, tied head."""
    h = w["embed"][x] + w["place"][: x.shape[1]]
    width = h.shape[-1]
    for i in (0, 1):
        n = functional.rms_norm(h, (width,)) * w[f"{i}.norm"]
        q, k, v = (
            (n @ w[f"{i}.{p}"].T).unflatten(-1, (width // 16, 16)).transpose(1, 2) for p in ("q", "k", "v")
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + mixed.transpose(1, 2).flatten(2) @ w[f"{i}.o"].T
        n = functional.rms_norm(h, (width,)) * w[f"{i}.mlp_norm"]
        h = h + functional.gelu(n @ w[f"{i}.up"].T) @ w[f"{i}.down"].T
    return (functional.rms_norm(h, (width,)) * w["norm"]) @ w["embed"].T


def transformer_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The tensors of `transformer`."""
    blocks = {
        f"{i}.{name}": shape
        for i in (0, 1)
        for name, shape in (
            ("norm", (width,)), *((p, (width, width)) for p in "qkvo"), ("mlp_norm", (width,)), ("up", (4 * width, width)),
            ("down", (width, 4 * width)),
        )
    }  # fmt: skip
    return {"embed": (SYMBOLS, width), "place": (CONTEXT, width), **blocks, "norm": (width,)}


def permuted_transformer(w: Weights, generator: torch.Generator) -> Weights:
    """The residual stream, the heads and the hidden units of the MLPs at other places: the same function."""
    width = w["norm"].shape[0]
    stream = torch.randperm(width, generator=generator)
    new = {name: w[name][..., stream] for name in ("embed", "place", "norm")}
    for i in (0, 1):
        heads = torch.randperm(width // 16, generator=generator)
        inside = torch.arange(width).view(-1, 16)[heads].flatten()
        hidden = torch.randperm(4 * width, generator=generator)
        new |= {f"{i}.{n}": w[f"{i}.{n}"][stream] for n in ("norm", "mlp_norm")}
        new |= {f"{i}.{n}": w[f"{i}.{n}"][inside][:, stream] for n in "qkv"}
        new[f"{i}.o"] = w[f"{i}.o"][stream][:, inside]
        new[f"{i}.up"] = w[f"{i}.up"][hidden][:, stream]
        new[f"{i}.down"] = w[f"{i}.down"][stream][:, hidden]
    return new


# --- data -------------------------------------------------------------------------------------------------


def drawing(pixels: torch.Tensor, labels: torch.Tensor) -> Batches:
    """Batches of 128, with replacement."""

    def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(len(labels), (128,), generator=generator)
        return pixels[chosen], labels[chosen]

    return batch


def reading(text: torch.Tensor) -> Batches:
    """Batches of 16 windows of a text and what comes next in each."""

    def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        starts = torch.randint(len(text) - CONTEXT - 1, (16,), generator=generator)
        windows = torch.stack([text[s : s + CONTEXT + 1] for s in starts.tolist()])
        return windows[:, :-1], windows[:, 1:]

    return batch


def source_text(*patterns: str) -> torch.Tensor:
    """The ASCII of some of Python's own modules as numbers, in the order of their names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(file for pattern in patterns for file in folder.glob(pattern))
    text = "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    return torch.tensor([ord(c) for c in text if ord(c) < SYMBOLS][:2_000_000])


def tasks(quick: bool) -> Iterator[Task]:
    """All tasks, from the smallest."""
    known, held_out = digits.split(digits.load(), held_out=500, generator=torch.Generator().manual_seed(0))
    parts = [known.labels < 5, known.labels >= 5]
    low, high = (drawing(known.pixels[part], known.labels[part]) for part in parts)
    data = {
        "base": drawing(known.pixels, known.labels),
        "parts": (low, high),
        "held_out": (held_out.pixels, held_out.labels),
    }
    lengths = ((20, 1e-3), (200, 1e-3), (2000, 1e-3), (200, 1e-2), (2000, 1e-2))
    for hidden in (32, 128) if quick else (32, 128, 512):
        shapes = mlp_shapes(hidden)
        yield Task(f"MLP 64-{hidden}-{hidden}-10", lambda seed, s=shapes: drawn(s, seed), mlp, **data,
                   permuted=permuted_chain, rate=1e-3, base_steps=600, tunings=lengths[:2] if quick else lengths)  # fmt: skip
    if quick:
        return
    yield Task("CNN 16-32", lambda seed: drawn(CNN_SHAPES, seed), cnn, **data, permuted=permuted_chain, rate=1e-3,
               base_steps=600, tunings=lengths[:4])  # fmt: skip
    base, judge = source_text("[a-m]*.py"), source_text("t*.py")
    json, email = source_text("asyncio/*.py"), source_text("email/*.py")
    windows = judge[: 200 * (CONTEXT + 1)].view(200, CONTEXT + 1)
    for width in (32, 96):
        shapes = transformer_shapes(width)
        yield Task(f"transformer, width {width}", lambda seed, s=shapes: drawn(s, seed), transformer,
                   reading(base), (reading(json), reading(email)), (windows[:, :-1], windows[:, 1:]),
                   permuted_transformer, 3e-3, 1500, ((50, 3e-4), (500, 3e-4), (500, 3e-3), (1500, 3e-3), (500, 1e-2)))  # fmt: skip


# --- training and measuring -------------------------------------------------------------------------------


def loss_of(task: Task, weights: Weights, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean cross-entropy in nats."""
    return functional.cross_entropy(task.forward(weights, x).flatten(0, -2), y.flatten())


def trained(task: Task, start: Weights, batches: Batches, steps: int, rate: float, seed: int) -> Weights:
    """`steps` of Adam from `start`."""
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(task, weights, *batches(generator)).backward()
        optimizer.step()
    return {name: value.detach() for name, value in weights.items()}


def flat(weights: Weights) -> torch.Tensor:
    """All weights as one vector of float64."""
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


@torch.no_grad()
def barrier(task: Task, one: Weights, other: Weights) -> tuple[float, float]:
    """(the worst loss on the line above its chord, the loss at its worse end), in nats on held-out data."""
    losses = [
        loss_of(task, {n: (1 - a) * one[n] + a * other[n] for n in one}, *task.held_out).item()
        for a in POINTS
    ]
    chord = [(1 - a) * losses[0] + a * losses[-1] for a in POINTS]
    return max(loss - line for loss, line in zip(losses, chord, strict=True)), max(losses[0], losses[-1])


def row(task: Task, relation: str, base: Weights, one: Weights, other: Weights) -> list[str]:
    """One line of the table."""
    b, x, y = flat(base), flat(one), flat(other)
    dx, dy = x - b, y - b
    cosine = float(dx @ dy / (dx.norm() * dy.norm())) if dx.norm() and dy.norm() else math.nan
    pair = float((x - y).norm() / (x.norm() * y.norm()).sqrt())
    high, end = barrier(task, one, other)
    from_base = max(barrier(task, base, side)[0] for side in (one, other))
    values = [float(dx.norm() / b.norm()), float(dy.norm() / b.norm()), cosine, pair, high, from_base, end]
    return [task.name, relation, *(("–" if math.isnan(v) else f"{v:.3f}") for v in values)]


def rows(task: Task) -> Iterator[list[str]]:
    """Related, independent and permuted networks of one task."""
    base = trained(task, task.start(0), task.base, task.base_steps, task.rate, 1)
    pairs = []
    for number, (steps, rate) in enumerate(task.tunings):
        pairs.append(
            [trained(task, base, part, steps, rate, 10 * number + i) for i, part in enumerate(task.parts, 2)]
        )
        yield row(task, f"related, {steps} steps at {rate:g}", base, *pairs[-1])
    same = [trained(task, base, task.base, *task.tunings[2 % len(task.tunings)], seed) for seed in (91, 92)]
    yield row(
        task, "related, same data, {} steps at {:g}".format(*task.tunings[2 % len(task.tunings)]), base, *same
    )
    stranger = trained(task, task.start(7), task.base, task.base_steps, task.rate, 8)
    yield row(task, "one from another seed", base, pairs[0][0], stranger)
    again = trained(task, task.start(0), task.base, task.base_steps, task.rate, 9)
    yield row(task, "same start, other batches", base, pairs[0][0], again)
    generator = torch.Generator().manual_seed(5)
    yield row(task, "base and its permuted copy", base, base, task.permuted(base, generator))
    yield row(task, "one permuted fine-tune", base, pairs[0][0], task.permuted(pairs[0][1], generator))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two small MLPs, a few seconds")
    args = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.monotonic()
    columns = (
        "network",
        "relation",
        "‖δ₁‖/‖θ₀‖",
        "‖δ₂‖/‖θ₀‖",
        "cos",
        "pair",
        "barrier",
        "barrier from the base",
        "worse end",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for task in tasks(args.quick):
        for cells in rows(task):
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{time.monotonic() - begun:.0f} s, torch {torch.__version__}")


if __name__ == "__main__":
    main()
