"""The task: sentences about Python, a small language model of them, and two rewards that pull it two ways."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VOCABULARY = 768
CONTEXT = 64
COMPLETION = 20
"""Tokens of a completion; it never ends earlier, so that no reward pays for silence."""
PROMPT = 8
END = "<|end|>"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs to learn from, and the beginnings of others: to choose λ by, and to report on."""

    train: tuple[str, ...]
    select: tuple[str, ...]
    report: tuple[str, ...]


@cache
def paragraphs() -> tuple[str, ...]:
    """Prose of the help texts that ship with Python (`pydoc_data.topics`): lower case, letters and . , ; : ( ) ' -."""
    from pydoc_data.topics import topics

    found = []
    for name in sorted(topics):
        for block in re.split(r"\n\s*\n", topics[name]):
            if "::=" in block or re.match(r"\s{4,}|\s*(>>>|\*\*\*|===|---|\|)", block):
                continue
            plain = block.lower().replace("’", "'")
            plain = re.sub(r"[^a-z.,;:()' \n-]", "", plain)
            plain = re.sub(r"\s+", " ", plain).strip()
            if len(plain) >= 80 and len(plain) > 0.85 * len(re.sub(r"\s+", " ", block).strip()):
                found.append(plain)
    return tuple(dict.fromkeys(found))


@cache
def tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the paragraphs. The same for every seed."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted({sign for text in paragraphs() for sign in text.replace(" ", "Ġ")})
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(paragraphs(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token=END, pad_token=END, padding_side="left", model_max_length=CONTEXT
    )


def text(seed: int, prompts: int) -> Text:
    """The paragraphs in an order that depends on the seed; the last 2 × `prompts` are not trained on.

    A prompt is the first tokens of a paragraph.
    """
    every = list(paragraphs())
    random.Random(seed).shuffle(every)  # noqa: S311 - an order, no secret
    held = [beginning(one) for one in every[-2 * prompts :]]
    return Text(tuple(every[: -2 * prompts]), tuple(held[:prompts]), tuple(held[prompts:]))


def beginning(paragraph: str) -> str:
    """The first tokens of a paragraph, as text: a prompt."""
    coder = tokenizer()
    return str(coder.decode(coder(paragraph)["input_ids"][:PROMPT]))


def words(completion: str) -> list[str]:
    """What stands between blanks and signs."""
    return re.findall(r"[a-z]+", completion)


def short(completion: str) -> float:
    """Reward: − letters per word. Without words: −20."""
    found = words(completion)
    return -sum(map(len, found)) / len(found) if found else -20.0


def letters(completion: str) -> float:
    """Reward: the share of the alphabet that occurs."""
    return len(set(completion) & set(ALPHABET)) / len(ALPHABET)


REWARDS = {"short": short, "letters": letters}
