"""What checkpoints say of themselves: the base they were fine-tuned from, their licence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from rsoup.compat.files import MAX_CONFIG_BYTES
from rsoup.errors import listing, show, show_path
from rsoup.recipe import ADAPTER_CONFIG
from rsoup.report import card
from rsoup.report.heritage import is_repo, licence_of
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.files import parse_json
from rsoup.storage.protocols import Source

_NAMES = (("config.json", "_name_or_path"), (ADAPTER_CONFIG, "base_model_name_or_path"))


def _claims(source: Source) -> Iterator[str]:
    """What a checkpoint says it was fine-tuned from: its card's base_model, its config's _name_or_path, an adapter's base."""
    model = card.beside(source).get("base_model")
    models = model if isinstance(model, list) else [model]
    if len(models) == 1 and isinstance(models[0], str) and models[0]:
        yield models[0]
    for file, field in _NAMES:
        data = source.side_file(file, MAX_CONFIG_BYTES)
        config = parse_json(data, f"{show(source.name)}/{file}") if data is not None else None
        path = config.get(field) if isinstance(config, dict) else None
        if isinstance(path, str) and path:
            yield path


def claimed_base(
    sources: Sequence[CheckpointSource], named: Sequence[tuple[str, str]], notes: list[str]
) -> tuple[str | None, str | None]:
    """(path, how to call it) of the base that the checkpoints name, if it is one and lies on this machine."""
    own = {os.path.realpath(uri) for _, uri in named}
    claims: dict[str, list[str]] = {}
    for source in sources:
        for claim in dict.fromkeys(_claims(source)):
            claims.setdefault(claim, []).append(source.name)
    local = {
        claim: who
        for claim, who in claims.items()
        if os.path.isdir(claim) and os.path.realpath(claim) not in own
    }
    if len({os.path.realpath(claim) for claim in local}) == 1:
        claim = next(iter(local))
        notes.append(
            f"the base is {show_path(claim)}, as {listing(local[claim])} {'say' if len(local[claim]) > 1 else 'says'}; another one: --base"
        )
        return claim, show_path(claim)
    if local:
        notes.append(f"the checkpoints name several bases ({listing(list(local))}): give one with --base")
    elif repos := [claim for claim in claims if is_repo(claim)]:
        notes.append(f"no base is given, so nothing is known of how far they moved; give it with --base: it is {' or '.join(map(show, repos[:3]))}")  # fmt: skip
    return None, None


def licences(sources: Sequence[Source]) -> list[str]:
    """A note where the cards of checkpoints name different licences."""
    found: dict[str, list[str]] = {}
    for source in sources:
        licence = licence_of(card.beside(source))
        if licence is not None:
            found.setdefault(str(licence), []).append(source.name)
    if len(found) < 2:
        return []
    shown = "; ".join(f"{show(licence)} in {listing(names)}" for licence, names in sorted(found.items()))
    return [f"the licences differ ({shown})"]
