"""Eleven soups of two models: `rsoup sweep`, eleven `rsoup merge`, and mergekit 0.1.5 eleven times.

    python benchmarks/sweep_vs_mergekit.py --mergekit MK_ENV/bin/mergekit-yaml --rounds 3 --layers 8

mergekit as in merge_vs_mergekit.py: from an environment of its own, linear, without the network and its tokenizer
step, at the settings that were its best there. Whole commands, one process per soup where it is one: that is what
sweeping λ takes without a sweep. rsoup's figures include its digests, checks and the fsync of every output; `rsoup
sweep` also digests the inputs, keeps its ledger and starts an evaluator per soup, here one that does nothing.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import make_checkpoints
from side_by_side import Work, in_turns, machine, parser, ratios, spread, table, weight_files
from sweep_vs_floor import MERGES, POINTS

if TYPE_CHECKING:
    from pathlib import Path

BEST = "--out-shard-size 500M"
_MERGEKIT = """
mergekit=$1 configs=$2 out=$3; shift 3
mkdir "$out"
for k in 0 1 2 3 4 5 6 7 8 9 10; do
  "$mergekit" "$configs/$k.yaml" "$out/$k" --no-copy-tokenizer --quiet "$@"
done
"""


def write_configs(folder: Path, inputs: list[Path]) -> None:
    """mergekit's configuration of each of the eleven soups, as 0.yaml to 10.yaml (JSON is YAML)."""
    folder.mkdir(exist_ok=True)
    for k in range(POINTS):
        shares = ((POINTS - 1 - k) / (POINTS - 1), k / (POINTS - 1))
        models = [
            {"model": str(path), "parameters": {"weight": share}}
            for path, share in zip(inputs, shares, strict=True)
        ]
        form = {"merge_method": "linear", "dtype": "bfloat16", "models": models}
        (folder / f"{k}.yaml").write_text(json.dumps(form))


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__, rounds=3)
    args_parser.add_argument(
        "--mergekit", default="mergekit-yaml", help="the command, in its own environment"
    )
    args_parser.add_argument("--settings", default=BEST, help="mergekit's options")
    args_parser.add_argument("--layers", type=int, default=8, help="22 is TinyLlama-1.1B: 24 GB are written")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", 2)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        inputs, out, configs = folders[1:3], work / "out", work / "mergekit"
        write_configs(configs, inputs)
        a, b = map(str, inputs)
        evaluator = ["--eval", "printf '{{\"x\":1}}'", "--reward", "x"]
        mergekit = f"{POINTS} × mergekit `{args.settings}`"
        commands = {
            "rsoup sweep": [*args.rsoup.split(), "sweep", a, b, "--grid", str(POINTS), "--keep", "all", "-q", "-o", str(out), *evaluator],
            f"{POINTS} × rsoup merge": ["sh", "-ec", MERGES, "merges", args.rsoup, str(out), a, b],
            mergekit: ["sh", "-ec", _MERGEKIT, "mergekit", args.mergekit, str(configs), str(out), *shlex.split(args.settings)],
        }  # fmt: skip
        size = sum(file.stat().st_size for file in weight_files(inputs[0]))
        print(f"{machine()}\n\nTwo inputs of {size / 1e9:.2f} GB, {POINTS} outputs.\n", flush=True)
        env = {"HF_HUB_OFFLINE": "1"}
        runs = in_turns(commands, args.rounds, out=out, inputs=inputs, patience=args.patience, env=env)
        walls = {name: [run.wall for run in done] for name, done in runs.items()}
        ours = walls["rsoup sweep"]
        rows = [
            (
                name,
                spread(walls[name]),
                spread(run.cpu for run in done),
                spread((run.peak_anon / 1e6 for run in done), 0),
                spread((run.peak_resident / 1e6 for run in done), 0),
                spread(ratios(walls[name], ours)),
                f"{min(walls[name]) / min(ours):.2f}",
                spread(run.others for run in done),
            )
            for name, done in runs.items()
        ]
        print("Seconds and MB, min / median / max; each round's quotient by `rsoup sweep`.\n")
        table(
            (
                "",
                "wall s",
                "CPU s",
                "anonymous MB",
                "resident MB",
                "÷ rsoup sweep",
                "of the minima",
                "others",
            ),
            rows,
        )


if __name__ == "__main__":
    main()
