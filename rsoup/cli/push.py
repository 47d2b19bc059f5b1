"""`rsoup push`: one call, and what the user sees of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from rsoup.console import Console, ProgressBar
from rsoup.errors import show
from rsoup.publish.asked import Options, Pushed
from rsoup.publish.pushing import push
from rsoup.storage.target import size_text

_SHOWN = 6
_FIELDS = ("base_model", "base_model_relation", "license", "library_name", "pipeline_tag", "tags")


def run(folder: str, repo: str, options: Options, *, console: Console) -> None:
    """Publish, and say where it is."""
    terminal = (
        not (console.quiet or console.as_json) and console.err.isatty() and os.environ.get("TERM") != "dumb"
    )
    with ProgressBar(console) as bar:
        done = push(folder, repo, options, progress=bar, bars=terminal)
    for note in done.notes:
        console.note(note)
    console.result(text(done), as_json(done), done.url)


def text(done: Pushed) -> str:
    """What was published, or would be: where, which files, which metadata."""
    if not done.dry_run and done.commit is None:
        lines = [done.url]
    elif done.dry_run:
        kind = "a private repository" if done.private else "a repository"
        lines = [f"would publish {done.repo}" + (f" ({kind} that is new)" if done.created else "") + (f" on {show(done.branch)}" if done.branch != "main" else "")]  # fmt: skip
    else:
        lines = [done.url]
    lines += _files("added", done.added)
    lines += _files("replaced", done.replaced)
    if done.kept:
        lines.append(f"  {'kept':<9} {_names(done.kept)}, equal already")
    if done.deleted:
        lines.append(f"  {'deleted':<9} {_names(done.deleted)}: of the model that was there")
    shown = [f"{key} {_value(done.metadata[key])}" for key in _FIELDS if done.metadata.get(key)]
    lines.append(f"  {'card':<9} {' · '.join(shown)}")
    if measured := _measured(done.metadata):
        lines.append(f"  {'measured':<9} {measured}")
    return "\n".join(lines)


def _files(word: str, files: Mapping[str, int]) -> list[str]:
    if not files:
        return []
    return [f"  {word:<9} {_names(list(files))}, {size_text(sum(files.values()))}"]


def _names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(show(name) for name in names[:_SHOWN])}{rest}"


def _value(value: object) -> str:
    return ", ".join(show(one) for one in value) if isinstance(value, list) else show(value)


def _measured(metadata: Mapping[str, object]) -> str:
    index = metadata.get("model-index")
    metrics = [
        metric
        for model in (index if isinstance(index, list) else [])
        for result in model["results"]
        if result.get("dataset", {}).get("type") == "rsoup"
        for metric in result["metrics"]
    ]
    return " · ".join(f"{show(metric['type'])} {metric['value']:.6g}" for metric in metrics)


def as_json(done: Pushed) -> dict[str, object]:
    """Everything about the push, as data."""
    return {
        "format": "rsoup-push/1",
        "dry_run": done.dry_run,
        "repo": done.repo,
        "url": done.url,
        "commit": done.commit,
        "pull_request": done.pull_request,
        "branch": done.branch,
        "created": done.created,
        "private": done.private,
        "added": dict(done.added),
        "replaced": dict(done.replaced),
        "kept": list(done.kept),
        "deleted": list(done.deleted),
        "bytes": done.nbytes,
        "metadata": done.metadata,
        "notes": list(done.notes),
    }
