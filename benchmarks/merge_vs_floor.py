"""`rsoup merge` against the physical floor: cat the inputs to nowhere, cp one of them, fsync.

    python benchmarks/merge_vs_floor.py --rounds 5

Both have the inputs in the page cache. The floor reads all inputs (and the base) once, copies one and waits
for the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import make_checkpoints
from side_by_side import Work, floor_command, in_turns, machine, parser, ratios, spread, table, weight_files

if TYPE_CHECKING:
    from pathlib import Path

LAMBDAS = {2: "0.3,0.7", 4: "0.1,0.2,0.3,0.4"}


def merge_command(rsoup: str, inputs: list[Path], base: Path | None, out: Path) -> list[str]:
    """The merge that is measured."""
    command = [*rsoup.split(), "merge", *map(str, inputs), "--lambda", LAMBDAS[len(inputs)], "-o", str(out)]
    return command + (["--base", str(base)] if base else [])


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__)
    args_parser.add_argument("--layers", type=int, default=22, help="22 is TinyLlama-1.1B")
    args_parser.add_argument("--counts", default="2,4", help="numbers of ingredients")
    args_parser.add_argument("--base", choices=["without", "with", "both"], default="both")
    args_parser.add_argument("--options", default="", help="further options of rsoup merge")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", 4)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        base, *tunes = folders
        out = work / "out"
        print(f"{machine()}\n")
        rows = []
        for count in map(int, args.counts.split(",")):
            for with_base in {"without": [False], "with": [True], "both": [False, True]}[args.base]:
                inputs = [*tunes[:count], *([base] if with_base else [])]
                merge = merge_command(args.rsoup, tunes[:count], base if with_base else None, out)
                commands = {
                    "floor": floor_command(inputs, out),
                    "rsoup": merge + args.options.split(),
                }
                runs = in_turns(commands, args.rounds, out=out, inputs=inputs, patience=args.patience)
                wall = {name: [r.wall for r in done] for name, done in runs.items()}
                rows.append(
                    (
                        f"{count} inputs{' + base' if with_base else ''}",
                        spread(wall["floor"]),
                        spread(wall["rsoup"]),
                        spread(r.cpu for r in runs["rsoup"]),
                        spread(ratios(wall["rsoup"], wall["floor"])),
                        f"{min(wall['rsoup']) / min(wall['floor']):.2f}",
                        spread((r.peak_anon / 1e6 for r in runs["rsoup"]), 0),
                        spread((r.peak_resident / 1e6 for r in runs["rsoup"]), 0),
                    )
                )
        print("Seconds and MB, min / median / max.\n")
        table(
            (
                "merge",
                "floor s",
                "rsoup s",
                "rsoup CPU s",
                "rsoup / floor",
                "of the minima",
                "anonymous MB",
                "resident MB",
            ),
            rows,
        )


if __name__ == "__main__":
    main()
