"""What lies beside the weights: copied files, the index, a true config.json, the model card."""

from __future__ import annotations

from collections.abc import Iterable

from rsoup.compat.files import MAX_CONFIG_BYTES
from rsoup.errors import AccessError, show
from rsoup.prepare import Prepared
from rsoup.report import card
from rsoup.side_files import soup_config
from rsoup.storage.files import changed, parse_json
from rsoup.storage.staging import Staging
from rsoup.tally import Tally

Written = dict[str, tuple[int, str]]
"""Name → (bytes, SHA-256) of the files beside the weights."""


def write_beside(
    ready: Prepared, staging: Staging, tally: Tally, *, overwrite: bool
) -> tuple[Written, list[str]]:
    """Stage what goes beside the weights of a folder; returns what was written, and notes for the reader."""
    plan, donor = ready.plan, ready.sources[ready.donor]
    written: Written = {}
    for name in ready.side_files:
        try:
            chunks: Iterable[bytes] = donor.side_file_chunks(name)
            if name.rpartition("/")[2] == "config.json":
                chunks = [soup_config(name, b"".join(chunks), plan.header, donor)]
            written[name] = staging.add_file(name, chunks)
        except AccessError as error:
            raise changed(error.where or name) from error  # it was there when the merge began
    for name, text in plan.index_files:
        written[name] = staging.add_file(name, [text])
    prose, notes = _card(ready, tally, overwrite=overwrite)
    written[card.NAME] = staging.add_file(card.NAME, [prose])
    if code := [name for name in donor.skipped_files if name.endswith(".py")]:
        notes.append(f"code is never copied: {', '.join(show(name) for name in code)}")
    if nested := [name for name in donor.skipped_files if "/" in name]:
        shown = ", ".join(show(name) for name in nested[:5])
        notes.append(f"weights in subfolders are not part of the soup: {shown}")
    return written, notes


def _card(ready: Prepared, tally: Tally, *, overwrite: bool) -> tuple[bytes, list[str]]:
    """The model card, and notes about it; an existing card at the output keeps its prose."""
    recipe = ready.plan.recipe
    cards = [card.beside(source) for source in ready.sources]
    base = None if recipe.public_base is None else (recipe.public_base, cards.pop())
    found, notes = card.metadata(recipe, cards, base, library=_library(ready))
    text = card.merged(
        card.replaced(ready.out, overwrite=overwrite),
        found,
        card.body(recipe, tally.distances(), tally.update_error()),
    )
    return text.encode("utf-8", "surrogateescape"), notes


def _library(ready: Prepared) -> str | None:
    """The library whose config.json lies beside the weights: the Hub wants it said."""
    if "model_index.json" in ready.sources[ready.donor].side_files:
        return "diffusers"
    if any(name.endswith(".zip") for name in (f.name for f in ready.sources[ready.donor].files)):
        return "stable-baselines3"
    data = ready.sources[ready.donor].side_file("config.json", MAX_CONFIG_BYTES)
    config = parse_json(data, "config.json") if data is not None else None
    if not isinstance(config, dict):
        return None
    if "_diffusers_version" in config:
        return "diffusers"
    return "transformers" if "architectures" in config or "transformers_version" in config else None
