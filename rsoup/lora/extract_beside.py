"""What lies beside an extracted adapter's weights: its configuration, the tokenizer, the card, the manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import rsoup
from rsoup import manifest
from rsoup.errors import AccessError
from rsoup.lora import card as lora_card
from rsoup.lora.extracted import Figures, figures_json, named
from rsoup.lora.tuned import Tuned
from rsoup.recipe import ADAPTER_CONFIG, public_name
from rsoup.report import card
from rsoup.storage.files import changed
from rsoup.storage.staging import Staging
from rsoup.tensors import Header

ARITHMETIC: Final = "rsoup-extract/1"
_TOKENIZER: Final = re.compile(
    r"(?:tokenizer\.json|tokenizer_config\.json|tokenizer\.model(?:\.v[0-9]+)?|special_tokens_map\.json|added_tokens\.json|"
    r"vocab\.(?:json|txt)|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|tekken\.json|[^/]*\.tiktoken|"
    r"chat_template\.(?:jinja|json))"
)


def write_beside(
    found: Tuned, out: str, config: bytes, figures: Figures, staging: Staging, *, overwrite: bool
) -> tuple[dict[str, tuple[int, str]], list[str]]:
    """Stage the configuration, the fine-tune's tokenizer and the card; (name → (bytes, SHA-256), notes)."""
    source = found.opened[0]
    written = {ADAPTER_CONFIG: staging.add_file(ADAPTER_CONFIG, [config])}
    for name in filter(_TOKENIZER.fullmatch, source.side_files):
        try:
            written[name] = staging.add_file(name, source.side_file_chunks(name))
        except AccessError as error:
            raise changed(error.where or name) from error
    prose, notes = _card(found, out, figures, overwrite=overwrite)
    written[card.NAME] = staging.add_file(card.NAME, [prose])
    return written, notes


def _card(found: Tuned, out: str, figures: Figures, *, overwrite: bool) -> tuple[bytes, list[str]]:
    base = (found.recipe.public_base or "", card.beside(found.opened[1]))
    about, notes = lora_card.metadata(
        found.recipe, [card.beside(found.opened[0])], named(found.recipe.base or "")[0], base
    )
    about["tags"] = ["lora", "rsoup"]
    return card.merged(card.replaced(out, overwrite=overwrite), about, _body(found, figures)).encode(
        "utf-8", "surrogateescape"
    ), notes


def _body(found: Tuned, figures: Figures) -> str:
    (ingredient,) = found.recipe.ingredients
    ranks = sorted(set(figures.ranks.chosen.values()))
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    lines = [
        "",
        "# Adapter",
        "",
        f"What the fine-tune {card.code(public_name(ingredient.checkpoints[0]))} changed of its base "
        f"{card.code(public_name(found.recipe.base or ''))}, as a LoRA adapter of {shown} on "
        f"{len(figures.ranks.chosen)} modules. Extracted with rsoup {rsoup.__version__}.",
        "",
        f"Relative error of these modules (Frobenius): {figures.ranks.error:.3g}.",
        "",
    ]
    if figures.saved or figures.biases:
        lines += [f"Kept whole: {len(figures.saved)} modules and {len(figures.biases)} biases.", ""]
    if figures.left_out:
        lines += [
            f"Left out: {len(figures.left_out)} changed tensors, {figures.left_out_share:.3g} of the norm of the change.",
            "",
        ]
    lines += ["`rsoup.json` holds the figures of every module, and a digest of every file and tensor.", ""]
    return "\n".join(lines)


def manifest_of(
    found: Tuned,
    figures: Figures,
    *,
    options: Mapping[str, object],
    weights: tuple[str, int, str],
    side_files: Mapping[str, tuple[int, str]],
    header: Header,
    content: str,
    tensors: Mapping[str, str],
    contents: tuple[str, str],
    copied: int,
    seconds: float,
) -> dict[str, object]:
    """The manifest; `contents` are the digests of the fine-tune and the base, `weights` the file's name, size, digest."""
    name, size, digest = weights
    return manifest.frame(
        found.recipe,
        arithmetic=ARITHMETIC,
        subjects=[{"name": name, "size": size, "digest": digest}],
        side_files=side_files,
        content=content,
        tensors=tensors,
        contents=[contents[0]],
        base=contents[1],
        checks={
            "mixed": len(header) - copied,
            "copied": copied,
            "dropped": sorted(name for name, _ in figures.left_out),
            "nonfinite_kept": {},
            "extract": {**figures_json(figures), **options},
        },
        files_from=found.recipe.checkpoints()[0][0],
        seconds=seconds,
    )
