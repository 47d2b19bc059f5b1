"""verify(out): a soup held against its manifest, its digests, its ingredients, its format's own library."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack

from rsoup.errors import UsageError
from rsoup.prepare import open_all, way_of
from rsoup.progress import Meter, OnProgress
from rsoup.proof import adapters, canonical, claims, intact
from rsoup.proof import rederive as again
from rsoup.proof.adapters import is_of_adapters, refuse_extracted
from rsoup.proof.canonical import Given, Path
from rsoup.proof.located import brought, located
from rsoup.proof.sampling import parse_nonce, parse_sample
from rsoup.proof.verdict import Level, VerifyResult
from rsoup.recipe import Recipe
from rsoup.remote.transfer import Fetch
from rsoup.storage.files import open_error
from rsoup.storage.protocols import Source

NONCE_BYTES = 16


def verify(
    out: Path,
    ingredients: Given = (),
    *,
    base: Path | None = None,
    digests: bool = True,
    sample: str | int | None = None,
    nonce: str | None = None,
    rederive: bool = False,
    load: bool = False,
    allow: Sequence[str] = (),
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> VerifyResult:
    """A VerifyResult if the soup at `out` is what its manifest says; nothing is written.

    Its structure always; `digests` of everything; a `sample` of blocks (`"2%"`, `300`) or all of them
    (`rederive`) mixed again from `ingredients`: paths in the recipe's order, NAME=PATH, a mapping, or one
    recipe file; those that the manifest has by their commit on the Hub need not be given. `out` may be an address. `load` opens it with the library of its format. `allow` is about the ingredients: symlinks,
    unindexed.

    Raises MismatchError E0901 (9), whose `result` is everything that was found; IncompatibleError (3) for
    ingredients that are not the soup's; UsageError (2), AccessError (7), RefusedFileError (8).
    """
    begun = time.monotonic()
    path = os.fspath(out)
    size = None if sample is None else parse_sample(sample)
    drawn = secrets.token_bytes(NONCE_BYTES) if nonce is None else parse_nonce(nonce)
    _check_asked(ingredients, base, asked=rederive or size is not None, nonce=nonce, sampled=size is not None)
    where = located(path)
    if where.commit is None:
        try:
            os.stat(where.path)
        except (OSError, ValueError) as error:
            raise open_error(error, where.shown) from error
    path, found = where.path, where.read()
    headers = not (digests or rederive or load or size is not None)
    elsewhere = brought(where, found, weights=not headers)
    nbytes = sum(subject.size for subject in found.subjects)
    notes: list[str] = []
    with intact.opened(
        path, found, uri=where.uri, elsewhere=elsewhere, fetch="headers" if headers else "cache"
    ) as (soup, structure):
        levels = [structure]
        if soup is not None:
            if where.commit is None:  # what was fetched is hashed below, whatever the cache says of it
                notes += soup.notes
            if digests:
                meter = Meter("digests", nbytes, progress)
                levels.append(intact.digests(path, soup, found, threads=threads, on_bytes=meter.add))
            if size is not None or rederive:
                refuse_extracted(found)
                recipe = canonical.recipe_of(found.canonical, found.shown, adapters=is_of_adapters(found))
                places = canonical.places(recipe, ingredients, base)
                if is_of_adapters(found):
                    levels.append(_adapters(recipe, places, path, soup, found, size, allow, threads))
                    size, rederive = None, False
            if size is not None or rederive:
                way: Fetch = way_of(recipe)
                if way == "stream" and not rederive:
                    way = "parts"
                with again.ingredients(recipe, places, path, found, allow, fetch=way) as ready:
                    if size is not None:
                        levels.append(
                            again.sample(ready, soup, found, size, drawn, threads=threads, progress=progress)
                        )
                    if rederive:
                        meter = Meter("mixing again", ready.plan.nbytes, progress)
                        levels.append(
                            again.rederive(
                                ready, soup, found, threads=threads, progress=progress, on_bytes=meter.add
                            )
                        )
            if load:
                from rsoup.proof.loading import load as load_soup

                levels.append(load_soup(path, soup))
    result = VerifyResult(where.shown, nbytes, tuple(levels), time.monotonic() - begun, tuple(notes))
    result.check()
    return result


def _adapters(
    recipe: Recipe,
    places: Sequence[tuple[str, str]],
    out: str,
    soup: Source,
    found: claims.Claims,
    size: object,
    allow: Sequence[str],
    threads: int | None,
) -> Level:
    """The answer of `rederive` for a soup of adapters; a sample of something so small saves nothing."""
    if size is not None:
        raise UsageError(
            "E0231",
            "a soup that is an adapter is not sampled",
            hint="--rederive makes all of it again, in a second",
        )
    with ExitStack() as stack:
        opened = open_all(recipe, places, allow, stack)
        return adapters.rederive(recipe, opened, out, soup, found, threads=threads)


def _check_asked(given: Given, base: Path | None, *, asked: bool, nonce: str | None, sampled: bool) -> None:
    if not asked and (given or base is not None):
        raise UsageError(
            "E0230",
            "checkpoints are given, and nothing that needs them is asked",
            hint="--rederive mixes all of it again, --sample 2% some of it",
        )
    if nonce is not None and not sampled:
        raise UsageError("E0231", "a nonce without a sample", hint="--sample 2% --nonce HEX")
