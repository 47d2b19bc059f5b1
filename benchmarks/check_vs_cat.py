"""`rsoup check` against reading alone: cat of the same files to nowhere.

    python benchmarks/check_vs_cat.py --rounds 5

Both have all files in the page cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import make_checkpoints
from side_by_side import Work, in_turns, machine, parser, ratios, spread, table, weight_files

if TYPE_CHECKING:
    from pathlib import Path


def check_command(rsoup: str, inputs: list[Path], base: Path | None) -> list[str]:
    """The check that is measured."""
    command = [*rsoup.split(), "check", *map(str, inputs), "--quiet"]
    return command + (["--base", str(base)] if base else [])


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__)
    args_parser.add_argument("--layers", type=int, default=22, help="22 is TinyLlama-1.1B")
    args_parser.add_argument("--count", type=int, default=4, help="number of checkpoints beside the base")
    args_parser.add_argument("--options", default="", help="further options of rsoup check")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", args.count)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        base, *tunes = folders
        print(f"{machine()}\n")
        rows = []
        for with_base in (False, True):
            inputs = [*tunes, *([base] if with_base else [])]
            commands = {
                "cat": ["sh", "-ec", 'cat "$@" >/dev/null', "cat", *(str(f) for folder in inputs for f in weight_files(folder))],
                "rsoup": check_command(args.rsoup, tunes, base if with_base else None) + args.options.split(),
            }  # fmt: skip
            runs = in_turns(commands, args.rounds, out=work / "out", inputs=inputs, patience=args.patience)
            wall = {name: [run.wall for run in done] for name, done in runs.items()}
            size = sum(file.stat().st_size for folder in inputs for file in weight_files(folder))
            rows.append(
                (
                    f"{len(tunes)} checkpoints{' + base' if with_base else ''}",
                    spread(wall["cat"]),
                    spread(wall["rsoup"]),
                    spread(run.cpu for run in runs["rsoup"]),
                    f"{size / min(wall['rsoup']) / 1e9:.1f}",
                    spread(ratios(wall["rsoup"], wall["cat"])),
                    spread((run.peak_anon / 1e6 for run in runs["rsoup"]), 0),
                )
            )
        print("Seconds and MB, min / median / max.\n")
        table(
            (
                "check",
                "cat s",
                "rsoup s",
                "rsoup CPU s",
                "GB/s",
                "rsoup / cat",
                "anonymous MB",
            ),
            rows,
        )


if __name__ == "__main__":
    main()
