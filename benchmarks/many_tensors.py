"""What a tensor costs beyond its bytes: 30,003 small tensors against 40 large ones of the same total size.

    python benchmarks/many_tensors.py --rounds 5

Whole `rsoup merge` commands in turns. The difference in seconds divided by tensors × ingredients is what each
tensor of each ingredient costs: parsing its header record, planning, reading, digesting, recording it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import make_checkpoints
from merge_vs_floor import merge_command
from side_by_side import Work, in_turns, machine, parser, spread, table, weight_files

if TYPE_CHECKING:
    from peak_memory import Run


def fastest(runs: list[Run]) -> float:
    """The least seconds of some runs."""
    return min(r.wall for r in runs)


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__)
    args_parser.add_argument("--counts", default="2,4", help="numbers of ingredients")
    args_parser.add_argument("--base", action="store_true", help="give the base too, and measure distances")
    args = args_parser.parse_args()
    many = make_checkpoints.moe()
    few = make_checkpoints.equal(many.nbytes, 40)
    with Work(args.work) as work:
        out = work / "out"
        folders = {}
        for name, shape in (("many", many), ("few", few)):
            folders[name] = make_checkpoints.folders_of(work / name, 4)
            if not weight_files(folders[name][-1]):
                make_checkpoints.write(shape, folders[name])
        print(f"{machine()}\n")
        rows = []
        for count in map(int, args.counts.split(",")):
            commands, read = {}, []
            for name, (base, *tunes) in folders.items():
                commands[name] = merge_command(args.rsoup, tunes[:count], base if args.base else None, out)
                read += tunes[:count]
            runs = in_turns(commands, args.rounds, out=out, inputs=read, patience=args.patience)
            units = (len(many.tensors) - len(few.tensors)) * (count + args.base)
            pairs = list(zip(runs["many"], runs["few"], strict=True))
            rows.append(
                (
                    count,
                    spread(r.wall for r in runs["few"]),
                    spread(r.wall for r in runs["many"]),
                    spread((1e6 * (a.wall - b.wall) / units for a, b in pairs), 1),
                    f"{1e6 * (fastest(runs['many']) - fastest(runs['few'])) / units:.1f}",
                    spread((1e6 * (a.cpu - b.cpu) / units for a, b in pairs), 1),
                    spread((r.peak_anon / 1e6 for r in runs["many"]), 0),
                )
            )
        print(f"{len(many.tensors)} tensors against {len(few.tensors)}, {many.nbytes / 1e9:.2f} GB each.\n")
        table(
            (
                "ingredients",
                "few: s",
                "many: s",
                "µs per tensor and ingredient",
                "of the minima",
                "CPU µs",
                "anonymous MB",
            ),
            rows,
        )


if __name__ == "__main__":
    main()
