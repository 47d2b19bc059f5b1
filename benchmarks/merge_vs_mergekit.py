"""`rsoup merge` against mergekit 0.1.5's linear merge of the same 4 × 1.1 B bf16 checkpoints.

    python benchmarks/merge_vs_mergekit.py --mergekit MK_ENV/bin/mergekit-yaml --rounds 5

mergekit runs from an environment of its own, without the network, on absolute paths, with its tokenizer step
off (the checkpoints have none). Whole commands, start-up included. rsoup's figure includes its digests, its
checks and an fsync of the output; mergekit's has none of these. The outputs are compared element by element.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import make_checkpoints
import torch
from merge_vs_floor import LAMBDAS, merge_command
from peak_memory import run
from safetensors import safe_open
from side_by_side import Work, in_turns, machine, parser, ratios, remove, spread, table, weight_files

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS = {
    "mergekit": [],
    "mergekit `--out-shard-size 500M`": ["--out-shard-size", "500M"],
    "mergekit `--out-shard-size 500M --async-write`": ["--out-shard-size", "500M", "--async-write"],
}


def mergekit_config(inputs: list[Path]) -> str:
    """The configuration of the same merge, in mergekit's YAML (JSON is YAML)."""
    models = [
        {"model": str(path), "parameters": {"weight": float(weight)}}
        for path, weight in zip(inputs, LAMBDAS[len(inputs)].split(","), strict=True)
    ]
    return json.dumps({"merge_method": "linear", "dtype": "bfloat16", "models": models})


def tensors_of(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a checkpoint."""
    found = {}
    for file in weight_files(folder):
        with safe_open(file, "pt") as opened:
            found |= dict.fromkeys(opened.keys(), file)
    return found


def _load(files: dict[str, Path], name: str) -> torch.Tensor:
    with safe_open(files[name], "pt") as opened:
        return opened.get_tensor(name)


def _steps(values: torch.Tensor) -> torch.Tensor:
    """bf16 numbers as integers whose differences count the representable numbers between them."""
    bits = values.view(torch.int16).to(torch.int32)
    return torch.where(bits >= 0, bits, -32768 - bits)


def compare(ours: Path, theirs: Path, inputs: list[Path]) -> list[tuple[str, str]]:
    """How far two merged checkpoints are from each other, and from the float64 average rounded once."""
    mine, other, sources = tensors_of(ours), tensors_of(theirs), [tensors_of(path) for path in inputs]
    if mine.keys() != other.keys():
        return [("tensors", f"{len(mine.keys() ^ other.keys())} are in one output only")]
    weights = [float(part) for part in LAMBDAS[len(inputs)].split(",")]
    total = differ = furthest = off_mine = off_other = 0
    for name in mine:
        a, b = _steps(_load(mine, name)), _steps(_load(other, name))
        exact = sum(w * _load(source, name).double() for w, source in zip(weights, sources, strict=True))
        nearest = _steps(exact.to(torch.bfloat16))
        distance = (a - b).abs()
        total += a.numel()
        differ += int((distance > 0).sum())
        furthest = max(furthest, int(distance.max()))
        off_mine += int((a != nearest).sum())
        off_other += int((b != nearest).sum())
    return [
        ("elements", f"{total}"),
        ("elements that differ", f"{differ} ({100 * differ / total:.4f} %)"),
        ("largest difference", f"{furthest} ulp"),
        ("rsoup: not the float64 average rounded once", f"{off_mine}"),
        ("mergekit: not the float64 average rounded once", f"{off_other} ({100 * off_other / total:.4f} %)"),
    ]


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__)
    args_parser.add_argument(
        "--mergekit", default="mergekit-yaml", help="the command, in its own environment"
    )
    args_parser.add_argument("--layers", type=int, default=22, help="22 is TinyLlama-1.1B")
    args_parser.add_argument("--skip-rsoup", action="store_true", help="measure mergekit alone")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", 4)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        inputs, out, kept = folders[1:], work / "out", work / "out-mergekit"
        config = work / "mergekit.yaml"
        config.write_text(mergekit_config(inputs))
        base = [args.mergekit, str(config), str(out), "--no-copy-tokenizer", "--quiet"]
        commands = {} if args.skip_rsoup else {"rsoup": merge_command(args.rsoup, inputs, None, out)}
        commands |= {name: base + options for name, options in VARIANTS.items()}
        print(f"{machine()}\n")
        env = {"HF_HUB_OFFLINE": "1"}
        runs = in_turns(commands, args.rounds, out=out, inputs=inputs, patience=args.patience, env=env)
        ours = runs.get("rsoup", [])
        rows = []
        for name, done in runs.items():
            faster = ratios([r.wall for r in done], [r.wall for r in ours]) if ours else []
            rows.append(
                (
                    name,
                    spread(r.wall for r in done),
                    spread(r.cpu for r in done),
                    spread((r.peak_anon / 1e6 for r in done), 0),
                    spread((r.peak_resident / 1e6 for r in done), 0),
                    spread(faster) if ours else "–",
                    f"{min(r.wall for r in done) / min(r.wall for r in ours):.2f}" if ours else "–",
                    f"{max(r.peak_anon for r in ours) / min(r.peak_anon for r in done):.3f}" if ours else "–",
                    f"{max(r.peak_resident for r in ours) / min(r.peak_resident for r in done):.3f}"
                    if ours
                    else "–",
                )
            )
        print("Seconds and MB, min / median / max; memory ratios compare our worst with their best.\n")
        table(
            (
                "command",
                "wall s",
                "CPU s",
                "anonymous MB",
                "resident MB",
                "rsoup is × faster",
                "of the minima",
                "our anonymous / theirs",
                "our resident / theirs",
            ),
            rows,
        )
        if ours:
            for folder in (out, kept):
                remove(folder)
            run(commands["rsoup"])
            run([*base[:2], str(kept), *base[3:]], env=env)
            table(("comparison of the outputs", ""), compare(out, kept, inputs))
            remove(kept)
            remove(out)


if __name__ == "__main__":
    main()
