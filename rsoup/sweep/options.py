"""How a sweep is run: workers, GPUs, time; nothing of it changes what is found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rsoup.errors import UsageError


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a sweep is run, which changes nothing of its results.

    `environments` are one per worker, `budget_seconds` the time after which no evaluation is begun or goes on,
    `retries` how often a failed evaluation is tried again at once, `max_failures` how many may fail before the
    run gives up. Without that, `first_failures` are enough while nothing at all is measured.
    """

    environments: Sequence[dict[str, str]] = ({},)
    budget_seconds: float | None = None
    retries: int = 0
    max_failures: int | None = None
    first_failures: int | None = None
    threads: int | None = None


def worker_environments(jobs: int, gpus_per_job: int, visible: Sequence[str]) -> list[dict[str, str]]:
    """One environment per worker, with GPUs of its own among `visible` where it needs some.

    Raises UsageError E0224 where there are too few.
    """
    if gpus_per_job == 0:
        return [{} for _ in range(jobs)]
    if jobs * gpus_per_job > len(visible):
        raise UsageError(
            "E0224",
            f"{jobs} jobs with {gpus_per_job} GPUs each, and {len(visible)} GPUs are there",
            hint="fewer --jobs, or set CUDA_VISIBLE_DEVICES to those that may be used",
        )
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(visible[i * gpus_per_job : (i + 1) * gpus_per_job])}
        for i in range(jobs)
    ]


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
