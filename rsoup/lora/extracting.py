"""extract(finetune, out): a full fine-tune becomes a LoRA adapter of its base, as near as its ranks allow."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rsoup.contents import content, fingerprint
from rsoup.digests import file_digest
from rsoup.errors import GateError, UsageError
from rsoup.layout import OutputFile
from rsoup.lora import extract_beside as beside
from rsoup.lora.compare import rank_note
from rsoup.lora.extract_plan import WEIGHTS, Plan, figures_of, foreseen, planned, reduced_by
from rsoup.lora.extracted import Figures, whole_keys
from rsoup.lora.portable import encode
from rsoup.lora.ranks import Ranks
from rsoup.lora.reducing import copy
from rsoup.lora.tuned import Tuned, moved, opened
from rsoup.manifest import NAME
from rsoup.manifest import encode as encode_manifest
from rsoup.names import names_for
from rsoup.progress import OnProgress
from rsoup.recipe import MAX_DISTANCE, Ingredient, Recipe
from rsoup.remote.transfer import Transfer, Way
from rsoup.request import Request, make
from rsoup.storage.staging import Staging
from rsoup.storage.target import check_target, is_single_file

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class ExtractResult:
    """An extracted adapter: where it is, its files and bytes, its figures, its configuration.

    Of a dry run nothing was written: `files` is empty, `manifest` too, and the figures are what they would be.
    """

    out: str
    files: tuple[str, ...]
    nbytes: int
    read_nbytes: int
    seconds: float
    figures: Figures
    config: Mapping[str, object]
    notes: tuple[str, ...]
    manifest: Mapping[str, object] = field(repr=False)
    transfers: tuple[Transfer, ...] = ()


def extract(
    finetune: Path,
    out: Path,
    *,
    base: Path,
    rank: int | str | None = None,
    max_error: str | float | None = None,
    dtype: str | None = None,
    save_modules: bool = False,
    embeddings: bool = False,
    drop: Sequence[str] = (),
    allow: Sequence[str] = (),
    max_distance: str | float = MAX_DISTANCE,
    variant: str | None = None,
    key: str | None = None,
    license: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    threads: int | None = None,
    progress: OnProgress | None = None,
    fail_above_error: float | None = None,
    dry_run: bool = False,
    fetch: Way = "cache",
) -> ExtractResult:
    """argmin ‖Δ − B·A‖ for Δ = θ − θ₀ of every linear module that changed, as a PEFT adapter; all of it or nothing.

    Either `rank` bounds every module's rank, or the ranks are the fewest whose relative error (Frobenius, over all
    modules) is at most `max_error`. Float64, one module in memory at a time; factors are stored as `dtype`, float32
    by default. What two factors cannot hold and changed is refused, kept whole (`save_modules`) or left out (`drop`);
    `embeddings` takes embeddings for matrices too. `fetch` "stream" leaves far weights where they are, and reads them two
    to four times. Raises UsageError (2), IncompatibleError (3: E0360 to E0364 and
    those of `merge`), GateError (4, E0401: an error above `fail_above_error`), TargetError (6), AccessError (7),
    RefusedFileError (8), BusyError (75). Source: Eckart and Young 1936.
    """
    begun = time.monotonic()
    recipe = _recipe(Request(
        [_ingredient(os.fspath(finetune), name)], base=os.fspath(base), rank=rank, max_error=max_error, dtype=dtype or "float32",
        drop=drop, allow=allow, max_distance=max_distance, variant=variant, key=key, license=license,
    ))  # fmt: skip
    target = os.fspath(out)
    _check_out(target)
    with opened(recipe, fetch) as found:
        check_target(target, _places(found), overwrite=overwrite)
        change = moved(found, threads=threads, progress=progress)
        plan = planned(found, change, save_modules, embeddings, threads, progress)
        options = {"save_modules": save_modules, "embeddings": embeddings}
        if dry_run:
            figures = foreseen(plan, threads, progress)
            _check_gate(figures.ranks, fail_above_error)
            return _result(plan, target, figures, [], {}, begun, ())
        with Staging(target, _sha256(plan, options), {WEIGHTS: (plan.file.pieces, plan.file.nbytes)}) as staging:  # fmt: skip
            check_target(target, [], overwrite=overwrite)
            sink = _Sink(staging, plan.file)
            reduced = reduced_by(plan, sink, threads, progress)
            figures = figures_of(plan, reduced)
            _check_gate(figures.ranks, fail_above_error)
            digests = {key: digest for one in reduced.values() for key, digest in one.digests.items()}
            whole = whole_keys(plan.parts)
            for stored, tensor in whole.items():
                digests[stored] = copy(found.names[tensor], found.tuned, stored, plan.header[stored], sink)
            contents = [fingerprint(source, threads=threads) for source in found.opened]
            for source in (found.tuned, found.base):
                source.check_unchanged()
            written, notes = beside.write_beside(
                found, target, encode(plan.config), figures, staging, overwrite=overwrite
            )
            built = beside.manifest_of(
                found,
                figures,
                options=options,
                weights=(WEIGHTS, plan.file.nbytes, file_digest(plan.file.head, [digests[n] for n in plan.file.tensors])),
                side_files=written,
                header=plan.header,
                content=content(plan.header, digests),
                tensors=digests,
                contents=(contents[0], contents[1]),
                copied=len(whole),
                seconds=time.monotonic() - begun,
            )  # fmt: skip
            staging.commit(overwrite=overwrite, last={NAME: encode_manifest(built)})
        return _result(plan, target, figures, notes, built, begun, (WEIGHTS, *written, NAME))


def _ingredient(path: str, name: str | None) -> Ingredient:
    return Ingredient(name if name is not None else names_for([path])[0], (path,))


def _recipe(request: Request) -> Recipe:
    if request.rank is None and request.max_error is None:
        raise UsageError(
            "E0219",
            "nothing says how large the adapter may be",
            hint="--rank 64 bounds its ranks; --max-error 0.1 its relative error",
        )
    return make(request)


def _check_out(out: str) -> None:
    if is_single_file(out):
        raise UsageError(
            "E0214",
            "an adapter is a folder: its configuration says what its tensors mean",
            hint="-o NAME, without an ending",
        )


def _places(found: Tuned) -> list[str]:
    folders = [source.folder for source in found.opened]
    return [*folders, *(os.path.join(s.folder, file.name) for s in found.opened for file in s.files)]


def _check_gate(ranks: Ranks, limit: float | None) -> None:
    if limit is not None and ranks.error > limit:
        raise GateError(
            "E0401",
            f"the adapter is {ranks.error:.3g} of the update's norm away from it; {limit:g} is the limit (--fail-above-error)",
            hint="a higher --rank, or --max-error instead of it",
        )


class _Sink:
    """A Sink over the one weight file of a staged adapter."""

    def __init__(self, staging: Staging, file: OutputFile) -> None:
        self._staging, self._file = staging, file.name
        self._at = dict(zip(file.tensors, file.offsets, strict=True))

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Put `data` at byte `start` of the tensor."""
        self._staging.write(self._file, self._at[tensor] + start, data)


def _sha256(plan: Plan, options: Mapping[str, object]) -> str:
    digest = hashlib.sha256()
    identities = (source.identity for source in plan.found.opened)
    for part in (beside.ARITHMETIC, plan.found.recipe.sha256(), repr(sorted(options.items())), *identities):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _result(
    plan: Plan,
    out: str,
    figures: Figures,
    notes: Sequence[str],
    built: Mapping[str, object],
    begun: float,
    files: Sequence[str],
) -> ExtractResult:
    found = plan.found
    came = tuple(transfer for source in found.opened for transfer in source.transfers)
    streamed = [one.told for one in came if one.way == "stream"]
    said = [*found.notes, *streamed, *plan.moved.notes, *notes, *rank_note(list(plan.ranks.values()))]
    return ExtractResult(
        out=out,
        files=tuple(files),
        nbytes=plan.file.nbytes,
        read_nbytes=plan.moved.nbytes,
        seconds=time.monotonic() - begun,
        figures=figures,
        config=plan.config,
        notes=tuple(said),
        manifest=built,
        transfers=came,
    )
