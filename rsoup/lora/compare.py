"""Adapters that are to be one soup: the same base, the same shapes, nothing that only one of them means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from rsoup.errors import IncompatibleError, Problem, listing, show
from rsoup.lora.adapter import Adapter
from rsoup.lora.config import AdapterConfig

_MAX_RANK = 512
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class _Configured(Protocol):
    """An adapter, as far as its name and configuration go."""

    @property
    def name(self) -> str:
        """The ingredient's name."""

    @property
    def config(self) -> AdapterConfig:
        """Its configuration."""


def compared(adapters: Sequence[Adapter], allow: Sequence[str], *, with_base: bool) -> list[str]:
    """Notes, if these adapters may be one soup.

    Raises IncompatibleError E0346 with every difference at once: other bases or revisions (unless `allow` holds
    `base`), tasks (`config`), shapes, kinds of modules.
    """
    notes: list[str] = []
    refused: list[Problem] = []
    flags: list[str] = []
    for flag, problem in (*_bases(adapters), *_tasks(adapters)):
        if flag in allow:
            notes.append(f"allowed: {problem.what}")
        else:
            refused.append(problem)
            flags.append(f"--allow {flag}")
    shapes = [*_shapes(adapters), *_settings(adapters)]
    if refused or shapes:
        hint = None if shapes else f"if you know that this does not matter: {' '.join(dict.fromkeys(flags))}"
        if not shapes and "--allow base" in flags and not with_base:
            hint = (
                "an adapter means something on its own base only; if these are names of one model: --allow base "
                "(with --base BASE its shapes are checked)"
            )
        raise IncompatibleError(
            "E0346", "the adapters do not belong together", details=(*refused, *shapes), hint=hint
        )
    remote = len(adapters) > 1 and any(is_repository(adapter.config.base) for adapter in adapters)
    if remote and not with_base and all(adapter.config.revision is None for adapter in adapters):
        notes.append(
            "the adapters do not say on which revision of their base they were trained; it is taken to be one"
        )
    return notes


def is_repository(base: str | None) -> bool:
    """Whether a base is a repository of the Hub, which may have changed between two trainings, by its name."""
    return base is not None and _REPOSITORY.fullmatch(base) is not None


def same_base(adapters: Sequence[_Configured], allow: Sequence[str]) -> list[str]:
    """Notes, if these adapters may be folded into one base.

    Raises IncompatibleError E0346 where they name other bases or revisions, unless `allow` holds `base`.
    """
    problems = [problem for _, problem in _bases(adapters)]
    if not problems or "base" in allow:
        return [f"allowed: {problem.what}" for problem in problems]
    raise IncompatibleError(
        "E0346",
        "the adapters do not belong together",
        details=tuple(problems),
        hint="an adapter means something on its own base only; if these are names of one model: --allow base",
    )


def other_base(adapters: Sequence[_Configured], base: str | None) -> list[str]:
    """A note where the adapters name a folder that is here, and `base` is another one: shapes alone say nothing then."""
    named = {_place(a.config.base) for a in adapters if a.config.base and os.path.isdir(a.config.base)}
    if base is None or not named or named == {os.path.realpath(base)}:
        return []
    return [
        f"--base is not {listing(sorted(named), 2)}, which the adapters name; their shapes fit it, and more is not known"
    ]


def _groups(adapters: Sequence[_Configured], values: Sequence[object]) -> list[str]:
    """`'a' (x)` for each different value, with the names of all that have it."""
    having: dict[object, list[str]] = {}
    for adapter, value in zip(adapters, values, strict=True):
        having.setdefault(value, []).append(adapter.name)
    return [f"{show(value)} ({listing(names, 3)})" for value, names in having.items()]


def _place(base: str) -> str:
    """A base's name; for a folder that is here, where it really lies: two spellings of one path are one base."""
    return os.path.realpath(base) if os.path.isdir(base) else base.rstrip("/")


def _bases(adapters: Sequence[_Configured]) -> Iterator[tuple[str, Problem]]:
    """An adapter that names no base contradicts none."""
    named = [adapter for adapter in adapters if adapter.config.base]
    bases = [_place(adapter.config.base or "") for adapter in named]
    if len(set(bases)) > 1:
        yield "base", Problem("base", f"trained on different bases: {' and '.join(_groups(named, bases))}")
    revisions = [adapter.config.revision for adapter in adapters]
    if len({revision for revision in revisions if revision is not None}) > 1:
        yield (
            "base",
            Problem(
                "revision", f"different revisions of the base: {' and '.join(_groups(adapters, revisions))}"
            ),
        )


def _tasks(adapters: Sequence[Adapter]) -> Iterator[tuple[str, Problem]]:
    tasks = [adapter.config.task_type for adapter in adapters]
    if len({task for task in tasks if task is not None}) > 1:
        yield "config", Problem("task_type", f"different tasks: {' and '.join(_groups(adapters, tasks))}")


def _shapes(adapters: Sequence[Adapter]) -> Iterator[Problem]:
    seen: dict[str, tuple[str, object]] = {}
    for adapter in adapters:
        found: dict[str, object] = {
            name: (update.rows, update.columns, update.experts, update.keys.embedding, update.a_shape[1:])
            for name, update in adapter.updates.items()
        }
        found |= {f"{name} ": adapter.spec(key).shape for name, key in adapter.tensors.items()}
        found |= {f"{name}  ": adapter.spec(key).shape for name, key in adapter.beneath.items()}
        found |= {f"{name}   ": adapter.spec(key).shape[1:] for name, (_, key) in adapter.rows.items()}
        for name, shape in found.items():
            first, other = seen.setdefault(name, (adapter.name, shape))
            if other != shape:
                what = (
                    f"it is {_shape(other)} in '{show(first)}' and {_shape(shape)} in '{show(adapter.name)}'"
                )
                yield Problem(show(name.strip()), what)


def _shape(found: object) -> str:
    if isinstance(found, tuple) and len(found) == 5:
        rows, columns, experts, embedding, _ = found
        more = f" × {experts} experts" if experts != 1 else ""
        return f"{rows} × {columns}{more}{' of an embedding' if embedding else ''}"
    return str(found)


def _settings(adapters: Sequence[Adapter]) -> Iterator[Problem]:
    """What one file has one switch for, and the adapters do not agree on."""
    if len({adapter.of_pipeline for adapter in adapters}) > 1:
        formats = ["diffusers" if adapter.of_pipeline else "PEFT" for adapter in adapters]
        yield Problem("format", f"one file cannot be both: {' and '.join(_groups(adapters, formats))}")
    for key, what in (
        ("fan_in_fan_out", "fan_in_fan_out, which says how the base stores its weights"),
        ("alora_invocation_tokens", "the tokens that switch the adapter on (aLoRA)"),
        ("target_parameters", "target_parameters, which say what expert tensors are meant"),
    ):
        values = [_setting(adapter.config, key) for adapter in adapters]
        if len(set(values)) > 1:
            yield Problem(key, f"they differ in {what}")


def _setting(config: AdapterConfig, key: str) -> str:
    value = config.raw.get(key) or None
    if key == "target_parameters" and isinstance(value, list):
        value = sorted(map(str, value))  # PEFT keeps a set of them
    return repr(value)


def rank_note(ranks: Sequence[int]) -> list[str]:
    """A note on a rank that no server takes."""
    highest = max(ranks, default=0)
    if highest <= _MAX_RANK:
        return []
    return [f"rank {highest} is more than servers take ({_MAX_RANK}): --rank or --max-error makes it smaller"]
