"""Peak memory of `rsoup merge` at checkpoints of 1, 10 and 60 GB: it must not grow with the model.

    python benchmarks/memory_flat.py

Merges two checkpoints (two fine-tunes with their base where `--base` is given) at each of `--gigabytes`. Then 60 GB
checkpoints whose bodies are holes: once planned (`--dry-run`), once cooked with a sink that discards, which
is all of a merge but the disk. The library's block loop is what the sink is given to, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import make_checkpoints
from merge_vs_floor import merge_command
from peak_memory import run
from side_by_side import Work, machine, parser, remove, table, weight_files

if TYPE_CHECKING:
    from peak_memory import Run


def cook_into_nothing(paths: list[str], base: str | None) -> None:
    """A merge of `paths` with equal shares whose bytes go nowhere."""
    from rsoup import make_recipe, pot
    from rsoup.prepare import prepared
    from rsoup.tally import Tally

    class Nowhere:
        def write(self, tensor: str, start: int, data: memoryview) -> None:
            """Forget `data`."""

    with prepared(make_recipe(paths, uniform=True, base=base), paths[0] + "-nowhere") as ready:
        tally = Tally(ready.plan)
        pot.cook(ready.plan, ready.sources, Nowhere(), on_block=tally.add)
        print(tally.content())


def _checkpoints(folder: Path, gigabytes: float, *, with_base: bool, sparse: bool) -> list[Path]:
    folders = make_checkpoints.folders_of(folder, 1 + with_base)
    if not weight_files(folders[-1]):
        make_checkpoints.write(make_checkpoints.sized(int(gigabytes * 1e9)), folders, sparse=sparse)
    return folders


def _row(name: str, what: str, runs: list[Run]) -> tuple[object, ...]:
    failed = [r for r in runs if r.status]
    if failed:
        sys.exit(f"{name}, {what}: failed ({failed[0].status})\n{failed[0].output}")
    wall = statistics.median(r.wall for r in runs)
    return name, what, f"{wall:.1f}", *(f"{max(peak) / 1e6:.0f}" for peak in _peaks(runs))


def _peaks(runs: list[Run]) -> tuple[list[int], list[int]]:
    return [r.peak_anon for r in runs], [r.peak_resident for r in runs]


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__, rounds=2)
    args_parser.add_argument("--gigabytes", default="1,10", help="sizes of the checkpoints that are written")
    args_parser.add_argument("--sparse-gigabytes", type=float, default=60.0)
    args_parser.add_argument("--base", action="store_true", help="give the base too, and measure distances")
    args_parser.add_argument("--cook", nargs="+", help=argparse.SUPPRESS)
    args = args_parser.parse_args()
    if args.cook:
        cook_into_nothing(args.cook[1:], args.cook[0] or None)
        return
    rows = []
    with Work(args.work) as work:
        print(f"{machine()}\n")
        out = work / "out"
        for size in map(float, args.gigabytes.split(",")):
            folder = work / f"sized-{size:g}"
            folders = _checkpoints(folder, size, with_base=args.base, sparse=False)
            base, tunes = (folders[0], folders[1:]) if args.base else (None, folders)
            runs = []
            for _ in range(args.rounds):
                remove(out)
                os.sync()
                runs.append(run(merge_command(args.rsoup, tunes, base, out)))
            rows.append(_row(f"{size:g} GB", "merge", runs))
            for path in (out, folder):
                remove(path)
        folders = _checkpoints(work / "sparse", args.sparse_gigabytes, with_base=args.base, sparse=True)
        base, tunes = (folders[0], folders[1:]) if args.base else (None, folders)
        name = f"{args.sparse_gigabytes:g} GB, holes"
        dry = [*merge_command(args.rsoup, tunes, base, out), "--dry-run"]
        rows.append(_row(name, "merge --dry-run", [run(dry)]))
        given = [str(base or ""), *map(str, tunes)]
        rows.append(
            _row(name, "block loop, sink that discards", [run([sys.executable, __file__, "--cook", *given])])
        )
        remove(work / "sparse")
        torch_alone = run([sys.executable, "-c", "import torch"])
        rows.append(_row("–", "`import torch` alone", [torch_alone]))
    print("Two ingredients" + (" and their base" if args.base else "") + "; the highest peak of the runs.\n")
    table(("checkpoint", "what", "s", "anonymous MB", "resident MB"), rows)


if __name__ == "__main__":
    main()
