"""The task: a cheetah of MuJoCo that runs, paid R_α = Σ velocity − α Σ ‖action‖², and policies of Stable-Baselines3's PPO.

The two rewards are `fast` = R_0 and `frugal` = R_1; (1 − μ)·fast + μ·frugal is R_μ, so that MORL for μ is the same
training with α = μ.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium
    import numpy as np
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv, VecNormalize

ENVIRONMENT = "mo-halfcheetah-v5"
HORIZON = 1000
NAMES = ("fast", "frugal")
SETTINGS: dict[str, Any] = {
    "n_steps": 80,
    "batch_size": 500,
    "n_epochs": 10,
    "learning_rate": 3e-4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "max_grad_norm": 0.5,
    "device": "cpu",
}
POLICY: dict[str, Any] = {"net_arch": [64, 64], "log_std_init": -0.5}


@dataclass(frozen=True, slots=True)
class Episodes:
    """Undiscounted returns of the two rewards, one row per episode."""

    fast: np.ndarray
    frugal: np.ndarray

    def scores(self) -> dict[str, tuple[float, float]]:
        """Mean and standard error of each reward, as an evaluator answers."""
        return {name: mean_error(getattr(self, name)) for name in NAMES}

    def part(self, start: int, count: int) -> Episodes:
        """`count` of the episodes."""
        return Episodes(self.fast[start : start + count], self.frugal[start : start + count])


def mean_error(values: np.ndarray) -> tuple[float, float]:
    """(mean, s/√n), n ≥ 2."""
    return float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)


def body() -> gymnasium.Env[Any, Any]:
    """One environment; its reward is the vector (v, −‖a‖²), and an episode ends after HORIZON steps only."""
    import mo_gymnasium
    import mujoco

    # the model's file is an older dialect: MuJoCo would say so 25 times a training, and keep a log of it where it stands
    mujoco.set_mju_user_warning(lambda text: None if "deprecated" in text else print(text, file=sys.stderr))
    made: gymnasium.Env[Any, Any] = mo_gymnasium.make(ENVIRONMENT)
    return made


def bodies(alpha: float, count: int, seed: int) -> VecEnv:
    """`count` environments of R_α for PPO, in one process, stepped without wrappers and copies (a quarter faster)."""
    import numpy as np
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Bodies(DummyVecEnv):
        def step_wait(self) -> Any:
            seen, rewards, infos = np.empty((count, *self.observation_space.shape), np.float32), [], []
            self.age += 1
            for i, env in enumerate(self.envs):
                seen[i], pair, *_ = env.unwrapped.step(self.actions[i])
                rewards.append(pair[0] + alpha * pair[1])
                infos.append({})
                if self.age == HORIZON:
                    infos[i] = {"terminal_observation": seen[i].copy(), "TimeLimit.truncated": True}
                    seen[i], _ = env.reset()
            done = np.full(count, self.age == HORIZON)
            self.age %= HORIZON
            return seen, np.array(rewards, np.float32), done, infos

        def reset(self) -> Any:
            self.age = 0
            return super().reset().astype(np.float32)

    envs = Bodies([body] * count)
    envs.seed(seed)
    return envs


def run(model: PPO, eyes: VecNormalize, seeds: Sequence[int], horizon: int = HORIZON) -> Episodes:
    """One episode per seed with the policy's mean action, seen through the frozen statistics `eyes`."""
    import numpy as np

    envs = _stage(len(seeds))
    seen = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    fast, cost = np.zeros(len(envs)), np.zeros(len(envs))
    for _ in range(horizon):
        actions, _ = model.predict(eyes.normalize_obs(seen), deterministic=True)
        for i, (env, action) in enumerate(zip(envs, actions, strict=True)):
            seen[i], pair, *_ = env.unwrapped.step(action)
            fast[i] += pair[0]
            cost[i] -= pair[1]
    return Episodes(fast, fast - cost)


@cache
def _stage(count: int) -> list[gymnasium.Env[Any, Any]]:
    return [body() for _ in range(count)]


def load(path: Path) -> PPO:
    """A policy from an archive of Stable-Baselines3, trained or mixed, on one thread."""
    import torch
    from stable_baselines3 import PPO

    torch.set_num_threads(1)
    return PPO.load(path, device="cpu")


def eyes(path: Path) -> VecNormalize:
    """The statistics of observations and rewards, frozen."""
    from stable_baselines3.common.vec_env import VecNormalize

    frozen = VecNormalize.load(str(path), bodies(0.0, 1, 0))
    frozen.training = False
    return frozen
