"""rsoup.json: what was done, provably. Digests, recipe, measures, versions; nothing private."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from itertools import chain

import rsoup
from rsoup.digests import DIGEST
from rsoup.gram import Distances
from rsoup.plan import ARITHMETIC, Plan
from rsoup.recipe import Recipe
from rsoup.tally import Tally

NAME = "rsoup.json"
SCHEMA = "rsoup-manifest/1"

Accept = Callable[[Mapping[str, object]], None]
"""Asked before a soup of this manifest is put in its place; raises to leave the target as it was."""


def build(
    plan: Plan,
    tally: Tally,
    contents: Sequence[str | None],
    *,
    finished: Mapping[str, str],
    side_files: Mapping[str, tuple[int, str]],
    files_from: str,
    seconds: float,
    transfers: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """The manifest of a finished soup; equal for equal inputs and recipe, but for its `run` part.

    `contents` are the checkpoints' digests, the base's last. `finished` are the SHA-256 of weight files that hold more than a header and tensors, `side_files` maps a name
    to (bytes, SHA-256), `transfers` are what was streamed, and what was proven of it. No path, user or host name gets in: checkpoints are named
    by the last part of their path.
    """
    recipe = plan.recipe
    digests = tally.file_digests()
    subjects: list[dict[str, object]] = [
        {"name": f.name, "size": f.nbytes}
        | ({"sha256": finished[f.name]} if f.name in finished else {"digest": digests[f.name]})
        for f in plan.files
    ]
    built = frame(
        recipe,
        arithmetic=ARITHMETIC,
        subjects=subjects,
        side_files=side_files,
        content=tally.content(),
        tensors=tally.tensor_digests(),
        contents=contents[: plan.base],
        base=None if plan.base is None else contents[plan.base],
        checks=_checks(plan, tally),
        files_from=files_from,
        seconds=seconds,
    )
    return {**built, "run": _run(seconds) | {"streamed": list(transfers)}} if transfers else built


def frame(
    recipe: Recipe,
    *,
    arithmetic: str,
    subjects: Sequence[Mapping[str, object]],
    side_files: Mapping[str, tuple[int, str]],
    content: str,
    tensors: Mapping[str, str],
    contents: Sequence[str | None],
    base: str | None,
    checks: Mapping[str, object],
    files_from: str,
    seconds: float,
) -> dict[str, object]:
    """A manifest from its parts: `subjects` are the weight files, `contents` the ingredients' digests in order."""
    return {
        "schema": SCHEMA,
        "arithmetic": arithmetic,
        "digest": DIGEST,
        "subject": [
            *subjects,
            *(
                {"name": name, "size": size, "sha256": sha}
                for name, (size, sha) in sorted(side_files.items())
            ),
        ],
        "content": content,
        "tensors": dict(tensors),
        "recipe": {"sha256": recipe.sha256(), "canonical": recipe.canonical()},
        "ingredients": [
            {"name": name, "checkpoint": called, "content": known}
            for (name, _), called, known in zip(
                recipe.checkpoints(), chain(*recipe.public_checkpoints()), contents, strict=True
            )
        ],
        "base": None if recipe.base is None else {"checkpoint": recipe.public_base, "content": base},
        "checks": dict(checks),
        "overrides": [f"--allow {name}" for name in recipe.allow]
        + [f"--drop {glob}" for glob in recipe.drop]
        + ([f"--buffers-from {recipe.buffers_from}"] if recipe.buffers_from else [])
        + (["--normalize"] if recipe.mix != recipe.typed_mix else []),
        "files_from": files_from,
        "tool": {"name": "rsoup", "version": rsoup.__version__},
        "run": _run(seconds),
    }


def _checks(plan: Plan, tally: Tally) -> dict[str, object]:
    mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
    checks: dict[str, object] = {
        "mixed": mixed,
        "copied": len(plan.tensors) - mixed,
        "dropped": list(plan.dropped),
        "nonfinite_kept": tally.kept_nonfinite(),
    }
    distances = tally.distances()
    if distances is not None:
        checks["distances"] = distances_json(distances, plan.checkpoints[: plan.base])
        checks["update_error"] = tally.update_error()
    return checks


def distances_json(distances: Distances, names: Sequence[str]) -> dict[str, object]:
    """Distances from the base as JSON: relative and absolute by checkpoint, and the matrix of cosines."""
    return {
        "checkpoints": list(names),
        "absolute": list(distances.absolute),
        "relative": [
            value if value is None or math.isfinite(value) else None for value in distances.relative
        ],
        "cosine": [list(row) for row in distances.cosine],
    }


def _run(seconds: float) -> dict[str, object]:
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = int(epoch) if epoch is not None and epoch.isdigit() else time.time()
    return {
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("numpy", "torch")},
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "seconds": round(seconds, 3),
    }


def encode(value: Mapping[str, object]) -> bytes:
    """JSON with sorted keys, all of it ASCII: the same manifest is the same bytes, and none can move a cursor."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")
