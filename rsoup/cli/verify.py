"""`rsoup verify`: a soup against its manifest and its ingredients, a line per level."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.console import Console, ProgressBar
from rsoup.errors import MismatchError, show
from rsoup.proof.verdict import CAVEAT, Level, VerifyResult
from rsoup.storage.target import size_text

SCHEMA = "rsoup-verify/1"
SHOWN = 5


def run(
    out: str,
    checkpoints: Sequence[str],
    *,
    base: str | None,
    structure: bool,
    sample: str | None,
    nonce: str | None,
    rederive: bool,
    load: bool,
    allow: Sequence[str],
    threads: int | None,
    console: Console,
) -> int:
    """Verify, show every level that was asked, and return 0, or 9 where one of them does not hold."""
    from rsoup.proof.verifying import verify

    found: object
    try:
        with ProgressBar(console) as bar:
            found = verify(
                out, checkpoints, base=base, digests=not structure, sample=sample, nonce=nonce, rederive=rederive, load=load,
                allow=allow, threads=threads, progress=bar,
            )  # fmt: skip
    except MismatchError as error:
        found = error.result
    assert isinstance(found, VerifyResult)
    for note in found.notes:
        console.note(note)
    failed = "\n".join(level.name for level in found.levels if not level.holds)
    console.result(text(found), as_json(found), failed or found.out)
    return 0 if found.holds else MismatchError.exit_code


def text(result: VerifyResult) -> str:
    """The levels, a line of what each proves or what speaks against it, and what none of them proves."""
    lines = [f"{show(result.out)}: {size_text(result.nbytes)}, read in {result.seconds:.1f} s"]
    for level in result.levels:
        lines += _level(level)
    return "\n".join([*lines, CAVEAT])


def _level(level: Level) -> list[str]:
    if level.holds:
        return [f"  ✓ {level.name:<10} {level.proves}", *(f"      {line}" for line in level.more)]
    count = len(level.differences)
    lines = [f"  ✗ {level.name:<10} {count} {'difference' if count == 1 else 'differences'}"]
    lines += [f"      {found.where}: {found.what}" for found in level.differences[:SHOWN]]
    if count > SHOWN:
        lines.append(f"      and {count - SHOWN} more; --json lists them")
    return lines


def as_json(result: VerifyResult) -> dict[str, object]:
    """Everything that was found, as data."""
    return {
        "format": SCHEMA,
        "out": result.out,
        "holds": result.holds,
        "bytes": result.nbytes,
        "seconds": round(result.seconds, 3),
        "levels": [
            {
                "level": level.number,
                "name": level.name,
                "holds": level.holds,
                "proves": "; ".join((level.proves, *level.more)) if level.holds else None,
                "differences": [
                    {"where": found.where, "what": found.what, **found.data} for found in level.differences
                ],
                **level.data,
            }
            for level in result.levels
        ],
        "notes": list(result.notes),
        "caveat": CAVEAT,
    }
