"""Rows of the embeddings that stand for other tokens are never mixed in silence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from checkpoints import Family, related, write_folder
from refusals import Tensors, refused, whats

import rsoup as library
from rsoup.compat.tokenizer import compare_tokenizers, tokenizer_vocabulary


def tokenizer(tokens: list[str], **more: object) -> dict[str, object]:
    """A tokenizer.json with these tokens."""
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": more.pop("merges", []),
    }
    return {"model": model, "added_tokens": [], **more}


def with_tokenizer(folder: Path, tensors: Tensors, value: Mapping[str, object]) -> Path:
    """A checkpoint with a tokenizer.json."""
    return write_folder(folder, tensors, side_files={"tokenizer.json": json.dumps(value)})


@pytest.mark.fault("F5")
def test_permuted_tokens_are_refused(tmp_path: Path, family: Family) -> None:
    """Two ids that changed places: refused with their number and both their tokens."""
    a = with_tokenizer(tmp_path / "a", family.tuned[0], tokenizer(["x", "y", "z"]))
    b = with_tokenizer(tmp_path / "b", family.tuned[1], tokenizer(["x", "z", "y"]))

    error = refused(tmp_path, a, b)

    assert "2 token ids mean other tokens in 'a' and 'b': 1: 'y' / 'z', 2: 'z' / 'y'" in whats(error)
    assert error.hint == "if you know that this does not matter: --allow tokenizer"


@pytest.mark.fault("F5")
def test_added_tokens_are_refused_between_ingredients(tmp_path: Path, family: Family) -> None:
    """A token only one fine-tune knows has a trained row in one and noise in the other."""
    added = [{"id": 3, "content": "<|im_start|>"}]
    a = with_tokenizer(tmp_path / "a", family.tuned[0], tokenizer(["x", "y", "z"]))
    b = with_tokenizer(tmp_path / "b", family.tuned[1], tokenizer(["x", "y", "z"], added_tokens=added))

    assert "1 token id known to only one of 'a' and 'b': 3: '<|im_start|>'" in whats(refused(tmp_path, a, b))

    recipe = library.make_recipe([a, b], uniform=True, allow=["tokenizer"])
    assert any("allowed: 1 token id" in note for note in library.merge(recipe, tmp_path / "soup").notes)


@pytest.mark.fault("F5")
def test_tokens_added_to_the_base_are_a_note(tmp_path: Path) -> None:
    """Fine-tunes that all know the same new tokens belong together, though their base does not know them."""
    family = related(3)
    added = [{"id": 3, "content": "<|im_start|>"}]
    base = with_tokenizer(tmp_path / "base", family.base, tokenizer(["x", "y", "z"]))
    a, b = (
        with_tokenizer(tmp_path / name, tensors, tokenizer(["x", "y", "z"], added_tokens=added))
        for name, tensors in zip("ab", family.tuned, strict=False)
    )
    c = with_tokenizer(tmp_path / "c", family.tuned[2], tokenizer(["x", "y", "z"]))

    result = library.merge(library.make_recipe([a, b], uniform=True, base=base), tmp_path / "out" / "soup")

    assert any("1 token id of 'a' new to 'base': 3: '<|im_start|>'" in note for note in result.notes)
    assert "known to only one of 'a' and 'c'" in whats(refused(tmp_path, a, c, base=base))


@pytest.mark.fault("F5")
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (tokenizer(["x", "y"], merges=["x y", "y x"]), tokenizer(["x", "y"], merges=["y x", "x y"]), "merges"),
        (tokenizer(["x", "y"], merges=["x y"]), tokenizer(["x", "y"], merges=[["x", "y"]]), None),
        ({"model": {"vocab": [["x", -1.0], ["y", -2.0]]}}, {"model": {"vocab": [["x", -1.0], ["y", -3.0]]}}, "scores"),
        ({"model": {"vocab": [["x", -1.0], ["y", -2.0]]}}, {"model": {"vocab": [["y", -1.0], ["x", -2.0]]}}, "other tokens"),
        (tokenizer(["x"]), {"model": {}}, None),
        (tokenizer(["x"]), "nonsense", None),
    ],
)  # fmt: skip
def test_what_else_a_tokenizer_may_differ_in(one: object, other: object, expected: str | None) -> None:
    """Merges in another order and other unigram scores are refused; another spelling of merges is not."""
    mismatch, _ = compare_tokenizers("a", one, "b", other)

    assert (mismatch.what if mismatch else None) is None if expected is None else mismatch is not None
    if expected is not None and mismatch is not None:
        assert expected in mismatch.what


def test_steps_before_the_vocabulary_are_a_note() -> None:
    """Another normalizer, pre-tokenizer or post-processor leaves the rows what they are: said, not refused."""
    mismatch, notes = compare_tokenizers(
        "a", tokenizer(["x"], normalizer={"type": "NFC"}), "b", tokenizer(["x"], normalizer=None)
    )

    assert mismatch is None
    assert notes == ["tokenizer.json: 'normalizer' of 'a' and 'b' differ"]
    assert tokenizer_vocabulary(tokenizer(["x", "y"])) == {0: "x", 1: "y"}


@pytest.mark.fault("F5")
def test_slow_tokenizers_are_compared_by_their_files(tmp_path: Path, family: Family) -> None:
    """Without a tokenizer.json the vocabularies' files are compared byte for byte."""
    a = write_folder(tmp_path / "a", family.tuned[0], side_files={"tokenizer.model": b"one"})
    b = write_folder(tmp_path / "b", family.tuned[1], side_files={"tokenizer.model": b"two"})

    assert "tokenizer.model differs between 'a' and 'b'" in whats(refused(tmp_path, a, b))
