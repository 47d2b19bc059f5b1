"""Write checkpoints to measure with: a base and fine-tunes of it, streamed, in bounded memory.

    python benchmarks/make_checkpoints.py OUT --shape llama-1.1b --count 4

writes OUT/base and OUT/ft-0 … OUT/ft-3. Every fine-tune is the base plus small noise. Shapes:

llama-1.1b  TinyLlama-1.1B's (22 layers, hidden 2048, bf16, 2.2 GB), with a `config.json` other tools accept;
moe-30k     30,003 tensors of mostly 16 KiB in a few files with an index, 0.5 GB;
sized       a Llama of about `--gigabytes`, in files of at most 5 GB; or `--tensors` equal tensors.

`--sparse` writes the headers and leaves the bodies as holes: 60 GB take no space on disk and read as zeros.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

CHUNK = 4 << 20  # elements that are made at a time
POOL = 1 << 24  # normal numbers that are drawn; every chunk is a window of them

Specs = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """What a checkpoint consists of: bf16 tensors by name, its config, the bytes a file may hold."""

    tensors: Specs
    config: dict[str, object]
    max_file: int

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(2 * math.prod(shape) for shape in self.tensors.values())

    def files(self) -> list[tuple[str, Specs]]:
        """The tensors spread over files of at most `max_file` bytes, with the names such files have."""
        groups: list[Specs] = [{}]
        used = 0
        for name, shape in self.tensors.items():
            nbytes = 2 * math.prod(shape)
            if groups[-1] and used + nbytes > self.max_file:
                groups.append({})
                used = 0
            groups[-1][name] = shape
            used += nbytes
        if len(groups) == 1:
            return [("model.safetensors", groups[0])]
        return [(f"model-{i:05}-of-{len(groups):05}.safetensors", g) for i, g in enumerate(groups, 1)]


def llama(layers: int = 22, max_file: int = 5_000_000_000) -> Shape:
    """A Llama of TinyLlama-1.1B's widths: hidden 2048, intermediate 5632, 32 heads, 4 key-value heads."""
    hidden, inner, kv, vocab = 2048, 5632, 256, 32000
    tensors: Specs = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        tensors |= {
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}mlp.down_proj.weight": (hidden, inner),
            f"{at}mlp.gate_proj.weight": (inner, hidden),
            f"{at}mlp.up_proj.weight": (inner, hidden),
            f"{at}post_attention_layernorm.weight": (hidden,),
            f"{at}self_attn.k_proj.weight": (kv, hidden),
            f"{at}self_attn.o_proj.weight": (hidden, hidden),
            f"{at}self_attn.q_proj.weight": (hidden, hidden),
            f"{at}self_attn.v_proj.weight": (kv, hidden),
        }
    tensors["model.norm.weight"] = (hidden,)
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": layers,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": vocab,
    }
    return Shape(tensors, config, max_file)


def sized(nbytes: int, max_file: int = 5_000_000_000) -> Shape:
    """A Llama as above of about `nbytes`, by its number of layers."""
    nothing, one = llama(0).nbytes, llama(1).nbytes - llama(0).nbytes
    return llama(max(1, round((nbytes - nothing) / one)), max_file)


def moe(layers: int = 40, experts: int = 248) -> Shape:
    """A mixture of experts with many small tensors: 750 in each layer and three more, 16 KiB an expert's."""
    hidden, inner, vocab = 256, 32, 1024
    tensors: Specs = {"model.embed_tokens.weight": (vocab, hidden), "lm_head.weight": (vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}."
        tensors[f"{at}input_layernorm.weight"] = (hidden,)
        for expert in range(experts):
            for part, shape in (
                ("down", (hidden, inner)),
                ("gate", (inner, hidden)),
                ("up", (inner, hidden)),
            ):
                tensors[f"{at}mlp.experts.{expert}.{part}_proj.weight"] = shape
        tensors[f"{at}mlp.gate.weight"] = (experts, hidden)
        for part in "qkvo":
            tensors[f"{at}self_attn.{part}_proj.weight"] = (hidden, hidden)
    tensors["model.norm.weight"] = (hidden,)
    config: dict[str, object] = {"architectures": ["MoeForBenchmark"], "model_type": "moe_benchmark"}
    return Shape(tensors, config, 150_000_000)


def equal(nbytes: int, count: int) -> Shape:
    """`count` tensors of one size that have `nbytes` together, rounded up to rows of 1024 elements."""
    rows = math.ceil(nbytes / 2 / 1024 / count)
    tensors: Specs = {f"block.{i}.weight": (rows, 1024) for i in range(count)}
    return Shape(tensors, {"architectures": ["FewForBenchmark"], "model_type": "few_benchmark"}, 150_000_000)


def _header(tensors: Specs) -> bytes:
    records: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in tensors.items():
        nbytes = 2 * math.prod(shape)
        records[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(records, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_side_files(folder: Path, shape: Shape, files: list[tuple[str, Specs]]) -> None:
    (folder / "config.json").write_text(json.dumps(shape.config, indent=2) + "\n")
    if len(files) > 1:
        weight_map = {name: file for file, tensors in files for name in tensors}
        index = {"metadata": {"total_size": shape.nbytes}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def write(
    shape: Shape, folders: list[Path], *, seed: int = 0, noise: float = 1e-3, sparse: bool = False
) -> None:
    """Write a base into `folders[0]` and fine-tunes of it into the others, all in one pass.

    The base is normal with deviation 0.02 (norms: 1), a fine-tune adds `noise` of its own to each element.
    """
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(POOL, generator=generator)
    files = shape.files()
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        _write_side_files(folder, shape, files)

    def window(size: int) -> torch.Tensor:
        start = int(torch.randint(POOL - size + 1, (1,), generator=generator))
        return pool[start : start + size]

    for file, tensors in files:
        outs = [(folder / file).open("wb", buffering=1 << 20) for folder in folders]
        try:
            header = _header(tensors)
            for out in outs:
                out.write(header)
                if sparse:
                    out.truncate(len(header) + sum(2 * math.prod(s) for s in tensors.values()))
            for name, dims in {} if sparse else tensors.items():
                is_norm, numel = name.endswith("norm.weight"), math.prod(dims)
                for start in range(0, numel, CHUNK):
                    size = min(CHUNK, numel - start)
                    base = window(size) * 0.02 + (1.0 if is_norm else 0.0)
                    for i, out in enumerate(outs):
                        values = torch.add(base, window(size), alpha=noise) if i else base
                        out.write(values.to(torch.bfloat16).view(torch.uint8).numpy())
        finally:
            for out in outs:
                out.close()


def folders_of(out: Path, count: int) -> list[Path]:
    """OUT/base, OUT/ft-0, … for `count` fine-tunes."""
    return [out / "base", *(out / f"ft-{i}" for i in range(count))]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=["llama-1.1b", "moe-30k", "sized"], default="llama-1.1b")
    parser.add_argument("--layers", type=int, help="layers of the Llama or the mixture of experts")
    parser.add_argument(
        "--gigabytes", type=float, default=1.0, help="with --shape sized: its size (1e9 bytes)"
    )
    parser.add_argument("--tensors", type=int, help="with --shape sized: this many equal tensors, no Llama")
    parser.add_argument("--count", type=int, default=4, help="fine-tunes beside the base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise", type=float, default=1e-3, help="standard deviation of a fine-tune's delta")
    parser.add_argument("--sparse", action="store_true", help="correct headers, holes for bodies")
    args = parser.parse_args()
    nbytes = int(args.gigabytes * 1e9)
    if args.shape == "llama-1.1b":
        shape = llama(args.layers or 22)
    elif args.shape == "moe-30k":
        shape = moe(args.layers or 40)
    else:
        shape = equal(nbytes, args.tensors) if args.tensors else sized(nbytes)
    folders = folders_of(args.out, args.count)
    write(shape, folders, seed=args.seed, noise=args.noise, sparse=args.sparse)
    os.sync()
    size = f"{len(shape.tensors)} tensors, {shape.nbytes / 1e9:.3f} GB each"
    print(f"{len(folders)} checkpoints of {size}: {args.out}")


if __name__ == "__main__":
    main()
