"""The demo from start to end: train, save three checkpoints, cook five soups, score all of them."""

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
from rsoup.storage.rename import exchange, rename_new
from rsoup.storage.target import target_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rsoup.demo.train import Policies, Weights

MIXES = (("1", "0"), ("0.75", "0.25"), ("0.5", "0.5"), ("0.25", "0.75"), ("0", "1"))
_CONFIG = json.dumps(train.CONFIG, indent=2) + "\n"
_OWN_NAMES = re.compile(r"base|low|high|soup-[01]\.[0-9]{2}-[01]\.[0-9]{2}")


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
    """What `run` made in `out`: base, experts and soups as `rows`, in this order, and how to go on.

    `commands` cook soups of the same weights, byte for byte, into the folder they are typed in; each runs
    in a POSIX shell as it stands, where `run` ran. `accuracy` is the base's, on held-out
    digits, 0..1; `seconds` is the whole run's time.
    """

    out: str
    seed: int
    rows: tuple[DemoRow, ...]
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
    """θ(λ) = λ θ_low + (1 − λ) θ_high for five λ, scored on held-out digits; `OUT` has it all, or is not.

    Writes the checkpoint folders `base`, `low` (digits 0–4), `high` (5–9) and `soup-λ₁-λ₂` into the
    new folder `out`. It is staged beside it as `OUT.part-…` and renamed at the end; a run that fails
    removes what it staged. `overwrite` replaces a folder of an earlier demo, and nothing else.
    `progress` gets a line before each step. The numbers depend on `seed` (0 ≤ seed < 2⁶³),
    `expert_steps`, the machine and the version of torch.

    Raises TargetError: E0601 `out` exists, E0607 it exists and no demo made it, E0602 to E0606 it cannot
    be written (its parent must be there); AccessError E0704 without permission.
    Source: Rewarded soups (NeurIPS 2023), section 2.2, on a bandit after its section 3.4.
    """
    start = time.monotonic()
    folder = out.rstrip("/") or out
    _check_target(folder, overwrite=overwrite)
    with _staged(folder, overwrite=overwrite) as stage:
        policies = train.train(seed, expert_steps=expert_steps, progress=progress)
        _save(policies.base, os.path.join(stage, "base"))
        for name, weights in policies.experts.items():
            _save(weights, os.path.join(stage, name))
        rows = [_row("base", "", policies.base, policies)]
        rows += [_row(name, "", weights, policies) for name, weights in policies.experts.items()]
        for mix in MIXES:
            progress(f"soup: λ = {', '.join(mix)}")
            rows.append(_row(soup_name(mix), ",".join(mix), _cook(stage, mix), policies))
    return DemoResult(
        out=out,
        seed=seed,
        rows=tuple(rows),
        commands=tuple(_command(folder, mix) for mix in MIXES),
        accuracy=train.accuracy(policies.base, policies.held_out),
        seconds=time.monotonic() - start,
    )


def soup_name(mix: tuple[str, ...]) -> str:
    """`soup-0.75-0.25` for λ = 0.75, 0.25: two decimals each."""
    return "-".join(["soup", *(f"{float(share):.2f}" for share in mix)])


def _row(label: str, mix: str, weights: Weights, policies: Policies) -> DemoRow:
    reward = train.rewards(weights, policies.held_out)
    return DemoRow(label, mix, low=reward["low"], high=reward["high"])


def _save(weights: Weights, folder: str) -> None:
    """Write `weights` the way transformers does: `model.safetensors` beside a `config.json`."""
    from safetensors.torch import save

    os.mkdir(folder)
    with open(os.path.join(folder, "model.safetensors"), "xb") as file:
        file.write(save(dict(weights), metadata={"format": "pt"}))
    with open(os.path.join(folder, "config.json"), "x", encoding="utf-8") as file:
        file.write(_CONFIG)


def _cook(stage: str, mix: tuple[str, ...]) -> Weights:
    """Merge low and high, as any caller of the library does, and read the soup back from its file."""
    from safetensors.torch import load_file

    from rsoup.library import make_recipe
    from rsoup.merging import merge

    experts = {name: os.path.join(stage, name) for name in train.GROUPS}
    recipe = make_recipe(experts, mix=list(mix), base=os.path.join(stage, "base"))
    soup = os.path.join(stage, soup_name(mix))
    merge(recipe, soup)
    weights: Weights = load_file(os.path.join(soup, "model.safetensors"))
    return weights


def _command(folder: str, mix: tuple[str, ...]) -> str:
    """The line a user types for this soup, quoted for a POSIX shell."""
    place = f"./{folder}" if folder.startswith("-") else folder
    experts = [os.path.join(place, name) for name in train.GROUPS]
    base = os.path.join(place, "base")
    return shlex.join(
        ["rsoup", "merge", *experts, "--base", base, "--lambda", ",".join(mix), "-o", soup_name(mix)]
    )


def _check_target(folder: str, *, overwrite: bool) -> None:
    """Nothing, if a demo may go to `folder`; raises TargetError E0601 or E0607 if it may not."""
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
            return file.read(len(_CONFIG) + 1) == _CONFIG.encode()
    except OSError:
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
