"""Trains everything of one seed: the base, two experts, MORL between them, and experts that begin from MORL.

python train.py FOLDER --seed 0         resumable: a finished training is a folder that is not made again

    FOLDER/base.zip, eyes.pkl           PPO on R_0.1, and the observations' statistics, frozen from here on
    FOLDER/fast/STEPS.zip               R_0 from the base, at every length of LENGTHS
    FOLDER/frugal/STEPS.zip             R_1 from the base
    FOLDER/morl-0.1/STEPS.zip … 0.9     R_μ from the base; the backbones of Bone Soup are among them
    FOLDER/init-fast/STEPS.zip …        R_0, R_1 from MORL for μ = 1/2 after SHARED steps
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import world as worlds

if TYPE_CHECKING:
    from stable_baselines3 import PPO

ENVIRONMENTS = 25
BASE_ALPHA = 0.1
MIDDLE = 0.5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Environment steps of the trainings; all are multiples of what one rollout takes."""

    base: int = 800_000
    lengths: tuple[int, ...] = (75_000, 150_000, 300_000, 600_000)
    shared: int = 150_000
    morl: tuple[float, ...] = (0.5, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6)

    @property
    def full(self) -> int:
        """Steps of one training."""
        return self.lengths[-1]

    @staticmethod
    def of(text: str) -> Sizes:
        """Sizes from JSON that replaces some of them."""
        return Sizes(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(text).items()})


@dataclass(frozen=True, slots=True)
class Training:
    """One training: R_α for `lengths[-1]` steps from the archive `start`; `draw` is what its seed adds to the base's."""

    name: str
    alpha: float
    start: str
    lengths: tuple[int, ...]
    draw: int


def trainings(sizes: Sizes) -> Iterator[Training]:
    """All trainings after the base, those first that later ones begin from."""
    yield Training("fast", 0.0, "base.zip", sizes.lengths, 1)
    yield Training("frugal", 1.0, "base.zip", sizes.lengths, 2)
    for mu in sizes.morl:
        yield Training(f"morl-{mu}", mu, "base.zip", sizes.lengths, 10 + round(10 * mu))
    start = f"morl-{MIDDLE}/{sizes.shared}.zip"
    rest = tuple(n - sizes.shared for n in sizes.lengths if n > sizes.shared)
    yield Training("init-fast", 0.0, start, rest, 3)
    yield Training("init-frugal", 1.0, start, rest, 4)


def main() -> None:
    """Train what is not there yet, and say a line for each."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--seed", type=int, required=True)
    arguments.add_argument(
        "--sizes", default="{}", help="JSON that replaces some of the sizes (for a small run)"
    )
    asked = arguments.parse_args()
    sizes = Sizes.of(asked.sizes)
    for line in train(asked.folder, asked.seed, sizes):
        print(line, flush=True)


def train(folder: Path, seed: int, sizes: Sizes) -> Iterator[str]:
    """Make every training that is missing under `folder`; yields what was done."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the same seed waits, and finds all of it made
        if not (folder / "base.zip").exists():
            yield _base(folder, seed, sizes.base)
        for one in trainings(sizes):
            if not (folder / one.name).exists():
                yield _fine_tune(folder, one, seed)


def _base(folder: Path, seed: int, steps: int) -> str:
    """PPO from scratch on R_0.1; the statistics it saw become `eyes.pkl`, before `base.zip` says that all is done."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    begun = time.monotonic()
    envs = VecNormalize(
        worlds.bodies(BASE_ALPHA, ENVIRONMENTS, _seed(seed, 0)), gamma=worlds.SETTINGS["gamma"]
    )
    model = PPO("MlpPolicy", envs, policy_kwargs=worlds.POLICY, seed=_seed(seed, 0), **worlds.SETTINGS)
    model.learn(steps)
    envs.training = False
    envs.save(str(folder / "eyes.pkl.part"))
    os.replace(folder / "eyes.pkl.part", folder / "eyes.pkl")
    _save(model, folder / "base.zip")
    return _line(folder, "base", steps, time.monotonic() - begun)


def _fine_tune(folder: Path, one: Training, seed: int) -> str:
    """PPO on R_α from an archive, with everything that scales observations and rewards frozen; a fresh optimiser."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecNormalize

    begun = time.monotonic()
    number = _seed(seed, one.draw)
    envs = VecNormalize.load(str(folder / "eyes.pkl"), worlds.bodies(one.alpha, ENVIRONMENTS, number))
    envs.training = False
    model = PPO("MlpPolicy", envs, policy_kwargs=worlds.POLICY, seed=number, **worlds.SETTINGS)
    model.policy.load_state_dict(PPO.load(folder / one.start, device="cpu").policy.state_dict())
    part = folder / f"{one.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    done = 0
    for length in one.lengths:
        model.learn(length - done, reset_num_timesteps=done == 0)
        _save(model, part / f"{length}.zip")
        done = length
    os.rename(part, folder / one.name)
    return _line(folder, one.name, done, time.monotonic() - begun)


def _seed(seed: int, draw: int) -> int:
    return 1000 * seed + draw


def _save(model: PPO, path: Path) -> None:
    part = path.with_name(f"part-{path.name}")
    model.save(part)
    os.replace(part, path)


def _line(folder: Path, name: str, steps: int, seconds: float) -> str:
    """One line of `trainings.jsonl`: what it cost."""
    fact: dict[str, Any] = {"name": name, "steps": steps, "seconds": round(seconds, 1)}
    with open(folder / "trainings.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(fact) + "\n")
    return f"{folder.name} {name}: {steps} steps in {seconds:.0f} s"


if __name__ == "__main__":
    main()
