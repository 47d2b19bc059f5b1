"""Soups of LoRA adapters against PEFT, on a Llama of 1.1 billion parameters with rank-16 adapters on all linears.

    python benchmarks/lora_vs_peft.py --peft /path/to/an/environment/bin/python

Three tables. Truncated: four adapters to one of rank 16, PEFT's `add_weighted_adapter(combination_type="svd")`, which is
run on a model of two layers and multiplied (`--peft-layers 22` runs all). Sweep: 11 λ from one reading against one.
Fold: two adapters into full weights, against `merge_and_unload` and `save_pretrained`.

PEFT's own figures are taken inside its process, without its imports; the whole commands are measured from outside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import make_adapters
import make_checkpoints
from peak_memory import run
from side_by_side import Work, in_turns, machine, parser, remove, spread, table, weight_files

PEFT = """
import json, sys, time
begun = time.perf_counter()
import torch, transformers, peft
imported = time.perf_counter()
kind, base, out, *adapters = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
model = peft.PeftModel.from_pretrained(model, adapters[0], adapter_name="a0")
for number, path in enumerate(adapters[1:], 1):
    model.load_adapter(path, adapter_name=f"a{number}")
names, weights = [f"a{i}" for i in range(len(adapters))], [1 / len(adapters)] * len(adapters)
loaded = time.perf_counter()
if kind == "svd":
    model.add_weighted_adapter(names, weights, "soup", combination_type="svd", svd_rank=16)
    merged = time.perf_counter()
    model.save_pretrained(out, selected_adapters=["soup"])
else:
    model.add_weighted_adapter(names, weights, "soup", combination_type="cat")
    model.set_adapter("soup")
    full = model.merge_and_unload()
    merged = time.perf_counter()
    full.save_pretrained(out)
ended = time.perf_counter()
print(json.dumps({"import": imported - begun, "load": loaded - imported, "merge": merged - loaded, "save": ended - merged}))
"""

STEP = """
import json, sys, time
import rsoup, torch
from rsoup.lora.cooking import cook
from rsoup.lora.merging import merge_adapters
from rsoup.lora.opening import opened
from rsoup.lora.planning import planned
from rsoup.storage.memory import DiscardSink
count, out, *adapters = sys.argv[1:]
mixes = [[f"{n + 1}/12", *[f"{11 - n}/36"] * 3] for n in range(11)]  # all inside: each with all four
mixes = mixes if int(count) > 1 else [["1/4"] * 4]
recipes = [(rsoup.make_recipe(adapters, mix=mix, rank=16), f"{out}/{i}") for i, mix in enumerate(mixes)]
with opened(recipes[0][0]) as ready:
    begun = time.perf_counter()
    outlines = [plan.outline for plan in planned(ready, recipes) if plan.outline is not None]
    cook(outlines, None, [DiscardSink() for _ in outlines])
    step = time.perf_counter() - begun
begun = time.perf_counter()
merge_adapters(recipes)
print(json.dumps({"step": step, "files": time.perf_counter() - begun}))
"""


def timed(python: str, script: str, *arguments: object) -> dict[str, float]:
    """What a script prints as its last line: seconds by step."""
    command = [python, "-W", "ignore", "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__, rounds=3)
    args_parser.add_argument(
        "--peft", default=sys.executable, help="the Python of an environment with PEFT and transformers"
    )
    args_parser.add_argument("--layers", type=int, default=22, help="22 is TinyLlama-1.1B")
    args_parser.add_argument("--peft-layers", type=int, default=2, help="layers PEFT's SVD is run on")
    args = args_parser.parse_args()
    with Work(args.work) as work:
        full, small = (models(work, layers) for layers in (args.layers, args.peft_layers))
        print(f"{machine()}\n")
        _truncated(args, work, full, small)
        _fold(args, work, full)


def models(work: Path, layers: int) -> tuple[Path, list[Path]]:
    """A base of so many layers and four adapters on it."""
    folder = work / f"llama-{layers}"
    (base,) = make_checkpoints.folders_of(folder, 0)
    if not weight_files(base):
        make_checkpoints.write(make_checkpoints.llama(layers), [base])
    adapters = make_adapters.folders_of(folder, 4)
    for number, adapter in enumerate(adapters):
        if not weight_files(adapter):
            make_adapters.write(adapter, base, layers=layers, rank=16, seed=number)
    return base, adapters


def _truncated(
    args: argparse.Namespace, work: Path, full: tuple[Path, list[Path]], small: tuple[Path, list[Path]]
) -> None:
    rounds, layers, fewer = args.rounds, args.layers, args.peft_layers
    one: list[dict[str, float]] = []
    eleven: list[dict[str, float]] = []
    peft, whole, memory = [], [], []
    start = [_seconds([sys.executable, "-c", "import torch"]) for _ in range(rounds)]
    for _ in range(rounds):
        for count, found in ((1, one), (11, eleven)):
            remove(work / "out")
            (work / "out").mkdir()
            found.append(timed(sys.executable, STEP, count, work / "out", *full[1]))
        remove(work / "out")
        command = [
            *args.rsoup.split(),
            "merge",
            *map(str, full[1]),
            "--uniform",
            "--rank",
            "16",
            "-q",
            "-o",
            str(work / "out"),
        ]
        done = run(command)
        whole.append(done.wall)
        memory.append(done.peak_resident)
        remove(work / "out")
        step = timed(args.peft, PEFT, "svd", small[0], work / "out", *small[1])["merge"]
        peft.append(step * layers / fewer)
    remove(work / "out")
    print("Four adapters of rank 16 to one of rank 16, seconds (min / median / max):\n")
    times = [p / o["step"] for p, o in zip(peft, one, strict=True)]
    table(
        ["", "seconds"],
        [
            [f"PEFT svd, the merge step ({fewer} layers × {layers / fewer:g})", spread(peft, 1)],
            ["rsoup, the merge step: factors read, soup made", spread(o["step"] for o in one)],
            ["times faster, round by round", spread(times, 0)],
            ["rsoup, the step for 11 λ", spread(e["step"] for e in eleven)],
            ["11 λ / one λ", spread(e["step"] / o["step"] for e, o in zip(eleven, one, strict=True))],
            ["from files to files, one λ (digests, manifest, fsync)", spread(o["files"] for o in one)],
            ["from files to files, 11 λ", spread(e["files"] for e in eleven)],
            ["rsoup merge, the whole command", spread(whole)],
            ["Python and torch alone", spread(start)],
            ["peak resident MB", spread((m / 1e6 for m in memory), 0)],
        ],
    )
    print()


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _fold(args: argparse.Namespace, work: Path, full: tuple[Path, list[Path]]) -> None:
    base, adapters = full[0], [str(path) for path in full[1][:2]]
    out = work / "out"
    commands = {
        "rsoup": [
            *args.rsoup.split(),
            "merge",
            *adapters,
            "--uniform",
            "--fold",
            "--base",
            str(base),
            "-q",
            "-o",
            str(out),
        ],
        "PEFT": [args.peft, "-W", "ignore", "-c", PEFT, "fold", str(base), str(out), *adapters],
    }
    runs = in_turns(commands, args.rounds, out=out, inputs=[base], patience=args.patience)
    print("Two adapters folded into 2.2 GB of bfloat16, whole commands (min / median / max):\n")
    table(
        ["", "seconds", "CPU seconds", "peak anonymous MB", "peak resident MB"],
        [
            [
                name,
                spread(run.wall for run in done),
                spread(run.cpu for run in done),
                spread((run.peak_anon / 1e6 for run in done), 0),
                spread((run.peak_resident / 1e6 for run in done), 0),
            ]
            for name, done in runs.items()
        ],
    )
    print(
        f"\nround by round: {spread(p.wall / r.wall for p, r in zip(runs['PEFT'], runs['rsoup'], strict=True))} times as fast"
    )


if __name__ == "__main__":
    main()
