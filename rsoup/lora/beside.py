"""What lies beside an adapter's weights: its configuration, the tokenizer's files, the model card, the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rsoup import manifest
from rsoup.errors import AccessError
from rsoup.lora.card import body, metadata
from rsoup.lora.opening import Opened
from rsoup.lora.result import AdapterMeasures, measures_json
from rsoup.recipe import ADAPTER_CONFIG, Recipe
from rsoup.report import card
from rsoup.storage.files import changed
from rsoup.storage.protocols import Source
from rsoup.storage.staging import Staging

ARITHMETIC = "rsoup-lora/1"


@dataclass(frozen=True, slots=True)
class Beside:
    """All that the files beside an adapter's weights say. `weights` are its name, size in bytes and digest.

    `config` is None for a LoRA of diffusers, which has it in the header of its weights.
    """

    ready: Opened = field(repr=False)
    recipe: Recipe
    out: str
    config: bytes | None
    measures: AdapterMeasures
    weights: tuple[str, int, str]
    tensors: Mapping[str, str]
    content: str
    modules: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Side:
    """What was staged: names, notes for the reader, the manifest that is yet to be written."""

    names: tuple[str, ...]
    notes: tuple[str, ...]
    manifest: dict[str, object]


def write_beside(found: Beside, staging: Staging, *, overwrite: bool) -> Side:
    """Stage everything but the weights and the manifest."""
    written = {}
    if found.config is not None:
        written[ADAPTER_CONFIG] = staging.add_file(ADAPTER_CONFIG, [found.config])
    donor, source = _donor(found.recipe, found.ready)
    if donor != "base":
        for name in side_files(source):
            try:
                written[name] = staging.add_file(name, source.side_file_chunks(name))
            except AccessError as error:
                raise changed(error.where or name) from error
    prose, notes = _card(found, overwrite=overwrite)
    written[card.NAME] = staging.add_file(card.NAME, [prose])
    name, size, digest = found.weights
    mixed = 0 if found.measures.copied is not None else len(found.tensors)
    built = manifest.frame(
        found.recipe,
        arithmetic=ARITHMETIC,
        subjects=[{"name": name, "size": size, "digest": digest}],
        side_files=written,
        content=found.content,
        tensors=found.tensors,
        contents=found.ready.contents,
        base=None,
        checks={
            "mixed": mixed,
            "copied": len(found.tensors) - mixed,
            "dropped": sorted(found.recipe.drop),
            "nonfinite_kept": {},
            "adapter": measures_json(found.measures),
        },
        files_from=donor,
        seconds=found.seconds,
    )
    return Side(tuple(written), tuple(notes), built)


def side_files(source: Source) -> list[str]:
    """What is copied along from an adapter's folder: all but its configuration, weights and the state of its run.

    Other adapters below it stay, too (PEFT writes those that are not called `default` into folders of their own, as TRL's
    reference `ref/`): their weights are no part of the soup.
    """
    others = tuple(name.removesuffix(ADAPTER_CONFIG) for name in source.side_files if name.endswith(f"/{ADAPTER_CONFIG}"))  # fmt: skip
    return [name for name in source.side_files if name != ADAPTER_CONFIG and not name.startswith(others)]


def _donor(recipe: Recipe, ready: Opened) -> tuple[str, Source]:
    """(name, source) of the adapter whose tokenizer and other files go along."""
    if recipe.files_from == "base":
        return "base", ready.sources[-1]
    index = recipe.names.index(recipe.files_from) if recipe.files_from is not None else 0
    position = recipe.groups()[index][0]
    return recipe.checkpoints()[position][0], ready.sources[position]


def _card(found: Beside, *, overwrite: bool) -> tuple[bytes, list[str]]:
    cards = [card.beside(adapter.source) for adapter in found.ready.adapters]
    name = found.recipe.public_base
    base = None if name is None else (name, card.beside(found.ready.sources[-1]))
    about, notes = metadata(found.recipe, cards, found.ready.adapters[0].config.base, base)
    if found.config is None:
        about |= {"library_name": "diffusers", "tags": ["diffusers", "lora", "merge", "rsoup"]}
    text = card.merged(
        card.replaced(found.out, overwrite=overwrite), about, body(found.recipe, found.measures)
    )
    return text.encode("utf-8", "surrogateescape"), notes
