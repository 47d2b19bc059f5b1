"""Twenty λ in a live module, without writing a byte, against writing each soup and loading it.

    python benchmarks/live_soup.py --rounds 3

One process: a module with the tensors of a Llama in bfloat16, two fine-tunes of it in the page cache. A live λ is
`soup.set_mix(λ, model=module)`; a written one is `rsoup.merge`, safetensors' `load_file` and `load_state_dict`, of
which `--written` are measured. Both end with the same bits in the module, which is checked.
"""

from __future__ import annotations

import os
import resource
import shutil
import time
from fractions import Fraction
from typing import TYPE_CHECKING

import make_checkpoints
import torch
from safetensors.torch import load_file
from side_by_side import Work, machine, parser, ratios, spread, table, weight_files
from torch import nn

import rsoup

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIXES = 20


def module_of(tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """A module whose parameters have these names, shapes and dtypes."""
    root = nn.Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        here = root
        for part in path:
            if part not in here._modules:
                here.add_module(part, nn.Module())
            here = here.get_submodule(part)
        here.register_parameter(last, nn.Parameter(torch.empty_like(tensor), requires_grad=False))
    return root


def mix_of(k: int) -> list[Fraction]:
    """The k-th of twenty λ inside the segment."""
    return [Fraction(k + 1, MIXES + 1), Fraction(MIXES - k, MIXES + 1)]


def written(paths: list[str], out: Path, module: nn.Module, k: int) -> None:
    """A soup by way of the disk."""
    shutil.rmtree(out, ignore_errors=True)
    rsoup.merge(rsoup.make_recipe(paths, mix=mix_of(k)), out)
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(out):
        tensors |= load_file(file)
    module.load_state_dict(tensors)


def main() -> None:
    """The command line."""
    args_parser = parser(__doc__, rounds=3)
    args_parser.add_argument("--layers", type=int, default=22, help="22 is TinyLlama-1.1B")
    args_parser.add_argument(
        "--written", type=int, default=3, help="soups that go by way of the disk, a round"
    )
    args = args_parser.parse_args()
    with Work(args.work) as work:
        folders = make_checkpoints.folders_of(work / f"llama-{args.layers}", 2)
        if not weight_files(folders[-1]):
            make_checkpoints.write(make_checkpoints.llama(args.layers), folders)
        paths = [str(folder) for folder in folders[1:]]
        first: dict[str, torch.Tensor] = {}
        for file in weight_files(folders[1]):
            first |= load_file(file)
        module = module_of(first)
        nbytes = sum(tensor.nbytes for tensor in first.values())
        del first
        live, disk = [], []
        print(f"{machine()}\n\nA module of {nbytes / 1e9:.2f} GB, two fine-tunes, {MIXES} λ.\n")
        with rsoup.open_soup(paths) as soup:
            soup.load_into(module)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            for _ in range(args.rounds):
                begun = time.monotonic()
                for k in range(MIXES):
                    soup.set_mix(mix_of(k), model=module)
                live.append((time.monotonic() - begun) / MIXES)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            sums = {name: value.double().sum().item() for name, value in module.state_dict().items()}
            for _ in range(args.rounds):
                os.sync()
                begun = time.monotonic()
                for k in range(MIXES - args.written, MIXES):
                    written(paths, work / "out", module, k)
                disk.append((time.monotonic() - begun) / args.written)
            same = all(
                value.double().sum().item() == sums[name] for name, value in module.state_dict().items()
            )
        print(f"The same bits in the end: {same}. Memory that 20 λ added to the peak: {(peak - before) / 1e6:.0f} MB.\n")  # fmt: skip
        head = ("", "seconds per λ, min / median / max")
        rows = [("live", spread(live)), ("written and loaded", spread(disk)), ("ratio", spread(ratios(disk, live)))]  # fmt: skip
        table(head, rows)


if __name__ == "__main__":
    main()
