"""Eleven soups of two models, `rsoup sweep` against the floor and against eleven merges.

    python benchmarks/sweep_vs_floor.py --rounds 3 --layers 8

The floor reads both inputs once, copies one of them eleven times and waits for the disk. `rsoup sweep` does what it
always does (digests of the inputs, eleven soups kept, an evaluator per soup, here one that does nothing); `one pass`
is `rsoup.merge_many` alone. Eleven of `rsoup merge` run one after the other. All have the inputs in the page cache.
"""

from __future__ import annotations

import sys

import make_checkpoints
from side_by_side import Work, in_turns, machine, parser, ratios, spread, table, weight_files

POINTS = 11
_FLOOR = """
out=$1 count=$2; shift 2
mkdir "$out"
cat "$@" >/dev/null
for n in $(seq 11); do mkdir "$out/$n"; for i in $(seq "$count"); do eval cp "\\${$i}" "$out/$n"; done; done
sync "$out"/*/*
"""
_ONE_PASS = """
import sys
import rsoup
from fractions import Fraction
out, a, b = sys.argv[1:]
mixes = [(1 - Fraction(k, 10), Fraction(k, 10)) for k in range(11)]
rsoup.merge_many([(rsoup.make_recipe([a, b], mix=m), f"{out}/{k}") for k, m in enumerate(mixes)])
"""
MERGES = """
rsoup=$1 out=$2 a=$3 b=$4
for k in 0 1 2 3 4 5 6 7 8 9 10; do
  $rsoup merge "$a" "$b" --lambda $((10 - k))/10,$k/10 -o "$out/$k" -q >/dev/null
done
"""


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__, rounds=3)
    args_parser.add_argument("--layers", type=int, default=8, help="22 is TinyLlama-1.1B: 24 GB are written")
    args_parser.add_argument("--without", default="", help="commands that are left out, such as merges")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", 2)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        _, *tunes = folders
        a, b = map(str, tunes[:2])
        out = work / "out"
        files = [str(file) for folder in tunes[:2] for file in weight_files(folder)]
        count = str(len(weight_files(tunes[0])))
        evaluator = ["--eval", "printf '{{\"x\":1}}'", "--reward", "x"]
        commands = {
            "start": [sys.executable, "-c", "import torch"],
            "floor": ["sh", "-ec", _FLOOR, "floor", str(out), count, *files],
            "one pass": [sys.executable, "-c", _ONE_PASS, str(out), a, b],
            "rsoup sweep": [*args.rsoup.split(), "sweep", a, b, "--grid", str(POINTS), "--keep", "all", "-q", "-o", str(out), *evaluator],
            "merges": ["sh", "-ec", MERGES, "merges", args.rsoup, str(out), a, b],
        }  # fmt: skip
        commands = {name: words for name, words in commands.items() if name not in args.without.split(",")}
        size = sum(file.stat().st_size for file in weight_files(tunes[0]))
        print(f"{machine()}\n\nTwo inputs of {size / 1e9:.2f} GB, {POINTS} outputs.\n")
        runs = in_turns(commands, args.rounds, out=out, inputs=tunes[:2], patience=args.patience)
        wall = {name: [run.wall for run in done] for name, done in runs.items()}
        rows = []
        for name in commands:
            net = [w - s for w, s in zip(wall[name], wall["start"], strict=True)]
            beside = "" if name in ("start", "floor") else spread(ratios(net, wall["floor"]))
            cpu = spread(run.cpu for run in runs[name])
            rows.append((name, spread(wall[name]), cpu, beside, spread((r.peak_anon / 1e6 for r in runs[name]), 0), spread((r.peak_resident / 1e6 for r in runs[name]), 0)))  # fmt: skip
        print("Seconds and MB, min / median / max.\n")
        table(
            ("", "seconds", "CPU seconds", "(seconds − import) / floor", "anonymous MB", "resident MB"), rows
        )


if __name__ == "__main__":
    main()
