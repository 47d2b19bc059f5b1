"""The soup again from its ingredients, all of it or a sample, compared bit for bit; nothing is written."""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any

from rsoup import manifest, pot
from rsoup import plan as plans
from rsoup.backends import make
from rsoup.contents import fingerprint, head_of, sha256_of
from rsoup.cooking import measured
from rsoup.errors import IncompatibleError, Problem, RsoupError, UsageError, show, show_path
from rsoup.kernel import mix_run
from rsoup.layout import FileFormat
from rsoup.lora.fused import contents, fused, own_file
from rsoup.methods import METHODS
from rsoup.plan import Block, Plan, Run
from rsoup.pot import BlockRecord
from rsoup.prepare import Prepared, compared, open_all
from rsoup.progress import OnProgress
from rsoup.proof.claims import Claims, folder_of
from rsoup.proof.comparing import ComparingSink
from rsoup.proof.sampling import BLOCK_BYTES, block_elements, draw
from rsoup.proof.verdict import Difference, Level
from rsoup.recipe import Recipe
from rsoup.remote.transfer import Fetch
from rsoup.report import card
from rsoup.scratch import Scratch
from rsoup.side_files import soup_config
from rsoup.storage.protocols import Source
from rsoup.storage.views import is_made
from rsoup.tally import Tally
from rsoup.workers import alone, each, torch_threads

REDERIVED = "every bit of it is what the recipe in rsoup.json gives of these ingredients"
_TOLERANCE = 1e-6
_NOT_ASKED = ("config", "tokenizer")

OnBytes = Callable[[int], None]


@contextmanager
def ingredients(
    recipe: Recipe,
    places: Sequence[tuple[str, str]],
    soup: str,
    claims: Claims,
    allow: Sequence[str] = (),
    *,
    fetch: Fetch = "cache",
) -> Iterator[Prepared]:
    """The checkpoints at `places`, open, and the plan of `recipe` over them; `places` has the base last.

    `fetch` says how the weights come of those that lie on the Hub.

    Raises IncompatibleError (3) where they cannot be mixed by this recipe: E0301, E0302, E0303 or E0330.
    """
    with ExitStack() as stack:
        sources, _ = compared(recipe, open_all(recipe, places, allow, stack, fetch=fetch), _NOT_ASKED)
        base = sources[-1] if recipe.base is not None else None
        fine_tuned = sources if base is None else sources[:-1]
        single = None if os.path.isdir(soup) else claims.subjects[0].name
        try:
            file_format: FileFormat = "torch" if recipe.file_format == "torch" else "safetensors"
            plan = plans.make(recipe, fine_tuned, base, single_file=single, file_format=file_format)
        except UsageError as error:
            raise IncompatibleError(
                "E0330",
                f"the recipe does not fit these checkpoints: {error.message}",
                where=claims.shown,
                hint="give the checkpoints that the soup was made of, in the recipe's order",
            ) from error
        names = plan.checkpoints
        donor = names.index(claims.value["files_from"]) if claims.value["files_from"] in names else 0
        yield Prepared(soup, plan, tuple(sources), (), donor)


def _planned(ready: Prepared, threads: int | None, progress: OnProgress | None) -> Plan:
    if METHODS[ready.plan.recipe.method].needs_gram:
        return measured(ready, threads, progress)
    return ready.plan


def rederive(
    ready: Prepared,
    soup: Source,
    claims: Claims,
    *,
    threads: int | None = None,
    progress: OnProgress | None = None,
    on_bytes: OnBytes | None = None,
) -> Level:
    """Whether mixing again gives every byte of the soup's weights, its copied files, and the manifest's figures.

    Raises IncompatibleError E0331 where a checkpoint is not the one the manifest has the contents of.
    """
    plan = _planned(ready, threads, progress)
    summed = fused(plan, ready.sources, threads=threads)
    sink, tally = ComparingSink(soup, plan.header), Tally(summed.plan, summed.grams)

    def on_block(block: Block, record: BlockRecord) -> None:
        tally.add(block, record)
        if on_bytes is not None:
            on_bytes(
                sum((r.stop - r.start) * plan.tensors[r.tensor].spec.dtype.bits // 8 for r in block.runs)
            )

    pot.cook(summed.plan, summed.sources, sink, on_block=on_block, threads=threads)
    for source in (*ready.sources, soup):
        source.check_unchanged()
    check_strangers(claims, dict(zip(plan.checkpoints, contents(plan, tally, ready.sources), strict=True)))
    found = [*sink.differences(), *_heads(ready.out, plan, soup), *_beside(ready, plan, claims)]
    found += _figures(plan, tally, ready, claims)
    mixed = sum(tensor.copy_from is None for tensor in plan.tensors)
    data = {"bytes": sink.compared_bytes, "mixed": mixed, "copied": len(plan.tensors) - mixed}
    return Level(3, "rederive", REDERIVED, tuple(found), data)


def sample(
    ready: Prepared,
    soup: Source,
    claims: Claims,
    size: int | Fraction,
    nonce: bytes,
    *,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Level:
    """Whether blocks of 64 KiB, drawn by `nonce`, are what mixing them again gives, bit for bit.

    Raises IncompatibleError E0331 where something differs and a checkpoint is not the one of the manifest.
    """
    planned = _planned(ready, threads, progress)
    summed = fused(planned, ready.sources, threads=threads)
    tensors = tuple(replace(tensor, measured=False) for tensor in summed.plan.tensors)
    plan, sources = replace(summed.plan, tensors=tensors), summed.sources
    numbers = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
    mixed = [tensor.name for tensor in plan.tensors if tensor.copy_from is None]
    chosen = draw(plan.header, mixed, size, claims.content, nonce)
    sink = ComparingSink(soup, plan.header)

    def worker(_: threading.Event) -> Callable[[Run], object]:
        alone()
        scratch = Scratch(len(sources), make())
        return lambda run: mix_run([plan], run, sources, [sink], scratch)[0]

    runs = (
        Run(numbers[name], at * step, min((at + 1) * step, plan.header[name].numel))
        for name, blocks in chosen.blocks.items()
        for step in (block_elements(plan.header[name]),)
        for at in blocks
    )
    with torch_threads(load=any(map(is_made, sources))):
        each(runs, worker, lambda *_: None, threads=threads)
    for source in (*ready.sources, soup):
        source.check_unchanged()
    found = [*sink.differences(), *_heads(ready.out, plan, soup)]
    if found:
        check_strangers(
            claims,
            {
                source.name: fingerprint(own_file(planned, source, ready.sources) or source, threads=threads)
                for source in ready.sources
                if claims.contents.get(source.name) is not None
            },
        )
    odds = chosen.found_with(0.01)
    proves = f"{chosen.count} of {chosen.total} blocks of 64 KiB are what the recipe gives of these ingredients, bit for bit"
    more = (
        f"if a share f of all blocks were altered, the {chosen.drawn} drawn at random would show it with probability 1 − (1 − f)^{chosen.drawn}: {odds:.1%} for f = 1 %",
        f"a single altered block can hide: --rederive looks at all; --nonce {nonce.hex()} repeats this draw",
    )
    data = {
        "nonce": nonce.hex(), "block_bytes": BLOCK_BYTES, "blocks": chosen.count, "drawn": chosen.drawn, "total_blocks": chosen.total,
        "bytes": sink.compared_bytes, "found_if_1_percent_altered": odds,
    }  # fmt: skip
    return Level(2, "sample", proves, tuple(found), data, more)


def check_strangers(claims: Claims, contents: Mapping[str, str | None]) -> None:
    """Refuse checkpoints whose contents the manifest knows and which are others."""
    known_as = {known: name for name, known in claims.contents.items() if known is not None}
    strangers = [
        Problem(
            f"'{show(name)}'",
            f"it is what the manifest calls '{show(known_as[contents[name] or ''])}'"
            if contents[name] in known_as
            else "its contents are not those that the manifest has of it",
        )
        for name, known in claims.contents.items()
        if known is not None and contents.get(name) not in (known, None)
    ]
    if strangers:
        raise IncompatibleError(
            "E0331",
            f"{len(strangers)} of {len(claims.contents)} checkpoints are not the ones this soup was made of",
            where=claims.shown,
            details=tuple(strangers),
            hint="give the very checkpoints, in the recipe's order or as NAME=PATH; nothing is said of the soup",
        )


def _heads(out: str, plan: Plan, soup: Source) -> list[Difference]:
    """Weight files whose first bytes (names, shapes, offsets, the recipe's hash) are not those of the plan."""
    planned = {file.name: file.head for file in plan.files}
    there = [file.name for file in soup.files]
    found = [
        Difference(show(name), "the recipe gives such a weight file") for name in planned if name not in there
    ]
    for name in there:
        if name not in planned:
            found.append(Difference(show(name), "the recipe gives no such weight file"))
        elif name.endswith(".safetensors") and head_of(os.path.join(folder_of(out), name), show_path(name)) != planned[name]:  # fmt: skip
            found.append(Difference(show(name), "its header is not the one the recipe gives"))
    return found


def _beside(ready: Prepared, plan: Plan, claims: Claims) -> list[Difference]:
    """Files beside the weights that are not what was copied; the card alone may hold somebody's prose."""
    if not os.path.isdir(ready.out):
        return []
    donor = ready.sources[ready.donor]
    expected: dict[str, str] = {}
    for name in donor.side_files:
        digest = hashlib.sha256()
        if name.rpartition("/")[2] == "config.json":
            data = b"".join(donor.side_file_chunks(name))
            digest.update(soup_config(name, data, plan.header, donor))
        else:
            for chunk in donor.side_file_chunks(name):
                digest.update(chunk)
        expected[name] = digest.hexdigest()
    for name, text in plan.index_files:
        expected[name] = hashlib.sha256(text).hexdigest()
    weights = {file.name for file in plan.files}
    found = []
    for name in sorted({*expected, *(subject.name for subject in claims.subjects)} - weights - {card.NAME}):
        what = f"it is not what '{show(plan.checkpoints[ready.donor])}' has"
        try:
            same = sha256_of(os.path.join(ready.out, name), show_path(name)) == expected.get(name)
        except RsoupError as error:
            same, what = False, error.message
        if not same:
            found.append(Difference(show(name), what))
    return found


def _figures(plan: Plan, tally: Tally, ready: Prepared, claims: Claims) -> list[Difference]:
    """Fields of the manifest that mixing again gives another value for; measures may differ in their last digits."""
    value = claims.value
    digests = contents(plan, tally, ready.sources)
    again: Mapping[str, Any] = manifest.build(
        plan, tally, digests, finished={}, side_files={}, files_from="", seconds=0.0
    )
    weights = {row["name"] for row in value["subject"] if "digest" in row}
    ours, theirs = (
        [r for r in rows if r["name"] in weights] for rows in (value["subject"], again["subject"])
    )
    pairs: list[tuple[str, Any, Any]] = [("subject", ours, theirs)]
    pairs += [
        (key, value[key], again[key]) for key in ("content", "tensors", "recipe", "ingredients", "base")
    ]
    keys = {*again["checks"], *value["checks"]}
    pairs += [(f"checks.{key}", value["checks"].get(key), again["checks"].get(key)) for key in sorted(keys)]
    return [
        Difference(f"rsoup.json: {field}", "mixing again gives another value")
        for field, says, gives in pairs
        if not _alike(says, gives)
    ]


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other) and bool(one == other)
