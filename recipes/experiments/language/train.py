"""Every training of one seed: a base from nothing, experts and mixtures of the rewards by TRL's GRPO.

python train.py FOLDER SEED [SIZE]        SIZE: full (default) or tiny

Each training is a folder that appears when it is complete, and is not made again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import plan
import world

if TYPE_CHECKING:
    from plan import Size, Training


def pretrained(folder: Path, seed: int, size: Size) -> None:
    """A Llama of two layers, from random numbers, on the paragraphs in a row; `save_pretrained`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    coder = world.tokenizer()
    end = coder.eos_token_id
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(coder), hidden_size=size.hidden, intermediate_size=3 * size.hidden,
            num_hidden_layers=size.layers, num_attention_heads=4, num_key_value_heads=4,
            max_position_embeddings=world.CONTEXT, tie_word_embeddings=True,
            bos_token_id=end, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip
    joined = " ".join(world.text(seed, size.prompts).train)
    stream = torch.tensor(coder.backend_tokenizer.encode(joined).ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.base_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, size.base_rate, size.base_steps)
    place = torch.arange(world.CONTEXT)
    for _ in range(size.base_steps):
        begin = torch.randint(len(stream) - world.CONTEXT, (size.base_batch, 1))
        batch = stream[begin + place]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    print(f"  loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    coder.save_pretrained(folder)


def reinforced(folder: Path, cell: Path, seed: int, what: Training, size: Size) -> None:
    """TRL's GRPO on the shares of the rewards, as a LoRA adapter or in full; saved as TRL saves."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import LlamaForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    model: Any = LlamaForCausalLM.from_pretrained(cell / "base")
    if what.start != "base":
        model = PeftModel.from_pretrained(
            model, cell / what.start, is_trainable=True
        )  # and TRL copies it: below
    elif not what.full:
        torch.manual_seed(1000 * seed + what.begin)
        config = LoraConfig(r=size.rank, lora_alpha=2 * size.rank, target_modules="all-linear", task_type="CAUSAL_LM")  # fmt: skip
        model = get_peft_model(model, config)
    prompts = [world.beginning(one) for one in world.text(seed, size.prompts).train]
    settings = GRPOConfig(
        output_dir=str(folder), max_steps=int(size.steps * what.length), seed=100_000 * (seed + 1) + what.draw,
        per_device_train_batch_size=size.completions, num_generations=size.group,
        max_completion_length=world.COMPLETION, generation_kwargs={"min_new_tokens": world.COMPLETION},
        learning_rate=size.full_rate if what.full else size.lora_rate, lr_scheduler_type="constant",
        beta=size.beta, reward_weights=[s / d for s, d in zip(what.shares, plan.SPREAD, strict=True)],
        save_strategy="steps" if what.save else "no", save_steps=int(size.steps * (what.save or 1)),
        logging_steps=max(1, size.steps // 6), report_to="none", use_cpu=True, disable_tqdm=True, bf16=False,
        gradient_checkpointing=False, temperature=1.0,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=settings, reward_funcs=[_paid(name) for name in world.REWARDS],
        train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=world.tokenizer(),
    )  # fmt: skip
    if what.start != "base":
        trainer.model.delete_adapter("ref")  # the reference is the base, as in all other trainings
    trainer.train()
    trainer.save_model(str(folder))
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    if what.save == Fraction(1, 2):
        (folder / f"checkpoint-{size.steps // 2}").rename(folder / "half")


def _paid(name: str) -> Callable[..., list[float]]:
    reward = world.REWARDS[name]

    def paid(completions: Sequence[str], **_: object) -> list[float]:
        return [reward(one) for one in completions]

    paid.__name__ = name
    return paid


def made(folder: Path, how: Callable[[Path], None]) -> bool:
    """Run `how` on a folder beside it and rename it into place; False if it was there."""
    if folder.exists():
        return False
    staged = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    begun = time.monotonic()
    how(staged)
    (staged / "seconds").write_text(f"{time.monotonic() - begun:.1f}\n")
    staged.rename(folder)
    return True


def everything(cell: Path, seed: int, size: Size, only: Sequence[str] = ()) -> None:
    """The base and all trainings of a seed; progress on stdout."""
    import torch

    torch.set_num_threads(1)
    if not (cell / "prompts.json").exists():
        cell.mkdir(parents=True, exist_ok=True)
        text = world.text(seed, size.prompts)
        held = {"select": text.select, "report": text.report}
        (cell / "versions.json").write_text(json.dumps(_versions()), encoding="utf-8")
        (cell / "prompts.json").write_text(json.dumps(held, indent=1), encoding="utf-8")
    if made(cell / "base", lambda folder: pretrained(folder, seed, size)):
        print(f"{cell.name} base {(cell / 'base' / 'seconds').read_text().strip()} s", flush=True)
    todo = [one for one in plan.trainings() if not only or one.name in only]
    for number, one in enumerate(todo, 1):
        if made(cell / one.name, lambda folder, one=one: reinforced(folder, cell, seed, one, size)):  # type: ignore[misc]
            took = (cell / one.name / "seconds").read_text().strip()
            print(f"{cell.name} {number}/{len(todo)} {one.name} {took} s", flush=True)


def _versions() -> dict[str, str]:
    """Of what decides the results: Python's too, since the text is its own."""
    import platform
    from importlib.metadata import version

    return {
        "python": platform.python_version(),
        **{n: version(n) for n in ("torch", "transformers", "peft", "trl")},
    }


def main() -> None:
    """Train what is missing."""
    cell, seed, size = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        plan.SIZES[sys.argv[3] if len(sys.argv) > 3 else "full"],
    )
    everything(cell, seed, size, sys.argv[4].split(",") if len(sys.argv) > 4 else ())


if __name__ == "__main__":
    main()
