"""The rewards of a model: samples after fixed prompts, with fixed seeds, and what the base thinks of them.

`rsoup sweep --function score:rewards` calls it with a live soup; as a command it reads folders, adapters too:
python score.py MODEL BASE OUT
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import world

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rsoup.live import Soup

SAMPLES = 4
"""Completions per prompt."""
SPLITS = {"select": "", "report": "_report"}
SEED = 1


@cache
def _judge(base: str) -> Any:
    """The base as it is; `_model` is the one whose weights change."""
    return _model.__wrapped__(base)


@cache
def _model(folder: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@cache
def _coder(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, padding_side="left")


def rewards(soup: Soup, out: str) -> dict[str, dict[str, float]]:
    """`measured` of a live soup."""
    base = str(soup.recipe.base)
    model = _model(base)
    soup.load_into(model)
    return measured(model, base, out)


def measured(model: Any, base: str, out: str) -> dict[str, dict[str, float]]:
    """Means over prompts, with standard errors over prompts; the first prompts' samples are left in `out`.

    short, letters: on the prompts that λ is chosen by; short_report, letters_report: on others. odd: the log-perplexity
    of the completions under the base, in nats per token, on the first.
    """
    held = json.loads(Path(base, "..", "prompts.json").read_text(encoding="utf-8"))
    prompts = [prompt for split in SPLITS for prompt in held[split]]
    texts, told = sampled(model, base, prompts)
    _leave(prompts, texts, out)
    found: dict[str, dict[str, float]] = {}
    for number, (split, end) in enumerate(SPLITS.items()):
        begin = SAMPLES * number * len(held["select"])
        some = slice(begin, begin + SAMPLES * len(held[split]))
        for name, pays in world.REWARDS.items():
            found[name + end] = _mean([pays(one) for one in texts[some]])
        if not end:
            found["odd"] = _mean(told[some])
    return found


def sampled(model: Any, base: str, prompts: Sequence[str]) -> tuple[list[str], list[float]]:
    """SAMPLES completions after each prompt, always with the same seed, and the mean surprise of the base at each."""
    import torch

    coder, judge = _coder(base), _judge(base)
    given = coder(list(prompts), padding=True, return_tensors="pt")
    given.pop("token_type_ids", None)
    torch.manual_seed(SEED)
    with torch.no_grad():
        whole = model.generate(
            **given, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_return_sequences=SAMPLES,
            max_new_tokens=world.COMPLETION, min_new_tokens=world.COMPLETION, pad_token_id=coder.pad_token_id,
        )  # fmt: skip
        begin = given["input_ids"].shape[1]
        mask = given["attention_mask"].repeat_interleave(SAMPLES, 0)
        mask = torch.cat([mask, torch.ones_like(whole[:, begin:])], 1)
        place = (mask.cumsum(1) - 1).clamp(min=0)
        chances = judge(input_ids=whole, attention_mask=mask, position_ids=place).logits.log_softmax(-1)
        told = chances[:, begin - 1 : -1].gather(2, whole[:, begin:, None])[..., 0]
    return coder.batch_decode(whole[:, begin:]), (-told.double().mean(1)).tolist()


def _mean(values: Sequence[float]) -> dict[str, float]:
    each = [fmean(values[k : k + SAMPLES]) for k in range(0, len(values), SAMPLES)]
    return {"value": fmean(each), "stderr": stdev(each) / len(each) ** 0.5}


def _leave(prompts: Sequence[str], texts: Sequence[str], out: str) -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    with open(Path(out, "samples.jsonl"), "w", encoding="utf-8") as file:
        for prompt, output in list(zip(prompts, texts[::SAMPLES], strict=True))[:8]:
            file.write(json.dumps({"prompt": prompt, "output": output}) + "\n")


def main() -> None:
    """Score a folder: a whole model, or an adapter of the base."""
    folder, base, out = sys.argv[1:]
    if (Path(folder) / "adapter_config.json").exists():
        from peft import PeftModel

        model = PeftModel.from_pretrained(_model(base), folder).merge_and_unload()
    else:
        model = _model(folder)
    print(json.dumps(measured(model, base, out)))


if __name__ == "__main__":
    main()
