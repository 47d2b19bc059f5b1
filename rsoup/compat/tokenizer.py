"""tokenizer.json → mismatches: does each row of the embeddings stand for the same token? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rsoup.compat.headers import Mismatch
from rsoup.errors import listing, show

_STEPS = ("normalizer", "pre_tokenizer", "post_processor")


def tokenizer_vocabulary(tokenizer: object) -> dict[int, str] | None:
    """id → token of a parsed tokenizer.json, its added tokens included; None where it has no vocabulary."""
    if not isinstance(tokenizer, dict):
        return None
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens: dict[int, str] = {}
    if isinstance(vocabulary, dict):
        tokens = {number: str(token) for token, number in vocabulary.items() if isinstance(number, int)}
    elif isinstance(vocabulary, list):
        tokens = {
            number: str(row[0]) for number, row in enumerate(vocabulary) if isinstance(row, list) and row
        }
    else:
        return None
    added = tokenizer.get("added_tokens")
    for row in added if isinstance(added, list) else []:
        if isinstance(row, dict) and isinstance(row.get("id"), int):
            tokens[row["id"]] = str(row.get("content"))
    return tokens


def tokenizer_rules(tokenizer: object) -> list[str]:
    """What turns text into ids beside the vocabulary: BPE merges, however written, or unigram scores."""
    model = tokenizer.get("model") if isinstance(tokenizer, dict) else None
    if not isinstance(model, dict):
        return []
    merges, vocabulary = model.get("merges"), model.get("vocab")
    if isinstance(merges, list):
        return [" ".join(map(str, row)) if isinstance(row, list) else str(row) for row in merges]
    return [str(row) for row in vocabulary] if isinstance(vocabulary, list) else []


def compare_tokenizers(
    one_name: str, one: object, other_name: str, other: object, *, may_add: bool = False
) -> tuple[Mismatch | None, list[str]]:
    """The mismatch between two parsed tokenizer.json, and notes: ids that mean other tokens, other merges.

    An id that only one of them knows is a mismatch too: the soup's row for it would be a mixture with noise.
    With `may_add`, `one` is the base, and tokens that only the other knows are a note.
    """
    a, b = tokenizer_vocabulary(one), tokenizer_vocabulary(other)
    if a is None or b is None:
        return None, []
    pair = f"'{show(one_name)}' and '{show(other_name)}'"
    if changed := sorted(number for number in a.keys() & b.keys() if a[number] != b[number]):
        examples = ", ".join(f"{n}: '{show(a[n], 30)}' / '{show(b[n], 30)}'" for n in changed[:5])
        what = f"{_count(changed)} mean{'s' if len(changed) == 1 else ''} other tokens in {pair}: {examples}"
        return Mismatch("tokenizer", what, (), "the embeddings' rows would be mixed across tokens"), []
    only = sorted(a.keys() ^ b.keys())
    known = a | b
    examples = ", ".join(f"{number}: '{show(known[number], 30)}'" for number in only[:5])
    notes = []
    if only and may_add and a.keys() < b.keys():
        notes.append(f"{_count(only)} of '{show(other_name)}' new to '{show(one_name)}': {examples}")
    elif only:
        what = f"{_count(only)} known to only one of {pair}: {examples}"
        return Mismatch("tokenizer", what, (), "tokens were added in one fine-tuning"), []
    if tokenizer_rules(one) != tokenizer_rules(other):
        what = f"the merges or scores of {pair} differ: the same text becomes other tokens"
        return Mismatch("tokenizer", what), notes
    differing = [
        step
        for step in _STEPS
        if isinstance(one, dict) and isinstance(other, dict) and one.get(step) != other.get(step)
    ]
    if differing:
        notes.append(f"tokenizer.json: {listing(differing)} of {pair} differ")
    return None, notes


def _count(ids: Sequence[int]) -> str:
    return "1 token id" if len(ids) == 1 else f"{len(ids)} token ids"
