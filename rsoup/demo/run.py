"""The demo from start to end: train, save three checkpoints, sweep λ between the experts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsoup.demo import train
from rsoup.errors import TargetError, show
from rsoup.storage.here import check_here
from rsoup.storage.rename import exchange, rename_new
from rsoup.storage.target import target_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rsoup.demo.train import Policies, Weights

GRID = 11
SWEEP = "sweep"
_FUNCTION = "rsoup.demo.score:rewards"
_OWN_NAMES = re.compile(r"base|low|high|sweep")
_CONFIG_BYTES = 4096


@dataclass(frozen=True, slots=True)
class DemoRow:
    """One scored checkpoint: its folder's name, its λ as typed (empty if it is no soup), two rewards.

    `low` and `high` are probabilities, 0..1: that a held-out digit 0–4, or 5–9, is answered right.
    """

    label: str
    mix: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What `run` made in `out`: the base and every λ of the sweep as `rows`, and how to go on.

    `document` is what the sweep in `OUT/sweep` found (its metrics.json). `commands` go on from here; each runs in
    a POSIX shell as it stands, where `run` ran. `accuracy` is the base's, on held-out digits, 0..1; `seconds`
    is the whole run's time.
    """

    out: str
    seed: int
    rows: tuple[DemoRow, ...]
    document: Mapping[str, object]
    commands: tuple[str, ...]
    accuracy: float
    seconds: float


def run(
    out: str,
    *,
    seed: int = 0,
    overwrite: bool = False,
    expert_steps: int = train.EXPERT_STEPS,
    progress: Callable[[str], None],
) -> DemoResult:
    """θ(λ) = λ θ_low + (1 − λ) θ_high for eleven λ, scored on held-out digits.

    Writes the checkpoint folders `base`, `low` (digits 0–4) and `high` (5–9) into the new folder `out`, staged
    beside it as `OUT.part-…` and renamed when they are complete, and sweeps λ in `OUT/sweep`; a run that fails
    before removes what it staged. `overwrite` replaces a folder of an earlier demo, and nothing else.
    `progress` gets a line before each step. The numbers depend on `seed` (0 ≤ seed < 2⁶³),
    `expert_steps`, the machine and the version of torch.

    Raises TargetError: E0601 `out` exists, E0607 it exists and no demo made it, E0602 to E0606 it cannot
    be written (its parent must be there); AccessError E0704 without permission; UsageError E0213 for an address.
    Source: Rewarded soups (NeurIPS 2023), section 2.2, on a bandit after its section 3.4.
    """
    start = time.monotonic()
    folder = out.rstrip("/") or out
    _check_target(folder, overwrite=overwrite)
    with _staged(folder, overwrite=overwrite) as stage:
        policies = train.train(seed, expert_steps=expert_steps, progress=progress)
        _save(policies.base, os.path.join(stage, "base"), seed)
        for name, weights in policies.experts.items():
            _save(weights, os.path.join(stage, name), seed)
    progress(f"sweep: {GRID} λ from one expert to the other, each scored on held-out digits")
    document = _sweep(folder)
    return DemoResult(
        out=out,
        seed=seed,
        rows=(_row("base", policies.base, policies), *_rows(document)),
        document=document,
        commands=_commands(folder, document),
        accuracy=train.accuracy(policies.base, policies.held_out),
        seconds=time.monotonic() - start,
    )


def _sweep(folder: str) -> Mapping[str, object]:
    """The sweep that `rsoup sweep` would make of the experts in `folder`; its document."""
    from rsoup.recipe import Ingredient
    from rsoup.request import Request
    from rsoup.sweep.score import Metric
    from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
    from rsoup.sweep.sweeping import check_ended, sweep

    experts = [Ingredient(name, (os.path.join(folder, name),)) for name in train.GROUPS]
    metrics = tuple(Metric(name, f"$.{name}") for name in train.GROUPS)
    spec = SweepSpec(
        request=Request(experts, base=os.path.join(folder, "base")),
        evaluators=(EvaluatorSpec(metrics, function=_FUNCTION),),
        design=Design(grid=GRID),
    )
    result = sweep(spec, os.path.join(folder, SWEEP))
    check_ended(result)
    return result.document


def _rows(document: Mapping[str, object]) -> Iterator[DemoRow]:
    points = document["points"]
    assert isinstance(points, list)
    for point in points:
        values = {name: float(found["value"]) for name, found in point["select"].items()}
        mix = ",".join(point["lambda"].values())
        yield DemoRow(point["expert"] or point["point"], mix, low=values["low"], high=values["high"])


def _row(label: str, weights: Weights, policies: Policies) -> DemoRow:
    reward = train.rewards(weights, policies.held_out)
    return DemoRow(label, "", low=reward["low"], high=reward["high"])


def _save(weights: Weights, folder: str, seed: int) -> None:
    """Write `weights` the way transformers does: `model.safetensors` beside a `config.json`."""
    from safetensors.torch import save

    os.mkdir(folder)
    with open(os.path.join(folder, "model.safetensors"), "xb") as file:
        file.write(save(dict(weights), metadata={"format": "pt"}))
    with open(os.path.join(folder, "config.json"), "x", encoding="utf-8") as file:
        file.write(json.dumps({**train.CONFIG, "seed": seed}, indent=2) + "\n")


def _commands(folder: str, document: Mapping[str, object]) -> tuple[str, ...]:
    """The lines a user types next, quoted for a POSIX shell."""
    place = f"./{folder}" if folder.startswith("-") else folder
    experts = [os.path.join(place, name) for name in train.GROUPS]
    base, run = os.path.join(place, "base"), os.path.join(place, SWEEP)
    points = document["points"]
    assert isinstance(points, list)
    best = next(point for point in points if point["point"] == document["best"])
    mix = ",".join(best["lambda"].values())
    return (
        shlex.join(["rsoup", "merge", *experts, "--base", base, "--lambda", mix, "-o", "soup"]),
        shlex.join(["rsoup", "sweep", *experts, "--base", base, "--grid", "21", "--function", _FUNCTION, "--reward", "low", "--reward", "high", "-o", run]),
    )  # fmt: skip


def _check_target(folder: str, *, overwrite: bool) -> None:
    """Nothing, if a demo may go to `folder`; raises TargetError E0601 or E0607 if it may not."""
    check_here(folder)
    if not os.path.lexists(folder):
        return
    if not overwrite:
        raise TargetError(
            "E0601", f"{show(folder)} exists", hint="name another folder, or replace it with --overwrite"
        )
    if not _made_by_demo(folder):
        raise TargetError(
            "E0607",
            f"{show(folder)} exists, and no demo made it",
            hint="name another folder; this one is kept",
        )


def _made_by_demo(folder: str) -> bool:
    """Whether a demo's folders are all there is in `folder`, its base among them, or nothing at all."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return False
    names = os.listdir(folder)
    if not all(_OWN_NAMES.fullmatch(name) for name in names):
        return False
    try:
        with open(os.path.join(folder, "base", "config.json"), "rb") as file:
            found = json.loads(file.read(_CONFIG_BYTES))
        return isinstance(found, dict) and found.items() >= train.CONFIG.items() and "seed" in found
    except (OSError, ValueError):
        return not names


@contextlib.contextmanager
def _staged(folder: str, *, overwrite: bool) -> Iterator[str]:
    """A new folder beside `folder` that takes its name when the block ends well, and else is removed."""
    stage = f"{folder}.part-{secrets.token_hex(4)}"
    try:
        os.mkdir(stage)
        yield stage
        _check_target(folder, overwrite=overwrite)
        replaces = os.path.lexists(folder)
        (exchange if replaces else rename_new)(stage, folder)
        if replaces:
            shutil.rmtree(stage)  # the earlier demo, which has changed places with the new one
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        raise target_error(error, show(folder)) from error
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
