"""Write LoRA adapters to measure with: random factors on all linear layers of a Llama, as PEFT saves them.

    python benchmarks/make_adapters.py OUT --layers 22 --count 4 --rank 16

writes OUT/lora-0 …: for the model of make_checkpoints.py's shape llama-1.1b, 154 modules at 22 layers.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from make_checkpoints import llama
from safetensors.torch import save_file

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write(folder: Path, base: Path, *, layers: int, rank: int, seed: int) -> None:
    """One adapter: rank `rank`, α = 2·rank, float32, B as large as training makes it (‖ΔW‖ some per cent of ‖W‖)."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in llama(layers).tensors.items():
        if name.rpartition(".")[0].rpartition(".")[2] not in TARGETS:
            continue
        rows, columns = shape
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
        tensors[f"{stem}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.01
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base), "r": rank,
        "lora_alpha": 2 * rank, "target_modules": list(TARGETS), "lora_dropout": 0.0, "bias": "none",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))


def folders_of(work: Path, count: int) -> list[Path]:
    """The adapters' folders below `work`."""
    return [work / f"lora-{number}" for number in range(count)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--base", type=Path, default=Path("base"))
    args = parser.parse_args()
    for number, folder in enumerate(folders_of(args.out, args.count)):
        write(folder, args.base, layers=args.layers, rank=args.rank, seed=number)


if __name__ == "__main__":
    main()
