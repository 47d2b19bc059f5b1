"""Integers and booleans are copied where they are equal, and never averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import Family, read_tensors
from refusals import changed, refused, two, whats

import rsoup as library


@pytest.mark.fault("G1")
def test_equal_buffers_are_copied(tmp_path: Path, family: Family) -> None:
    """Integers and booleans that are equal everywhere are copied, not averaged: the old causal mask of GPT-2."""
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
    more = {
        "h.0.attn.bias": mask,
        "h.0.attn.masked_bias": torch.tensor(-1e4),
        "flags": torch.tensor([True, False]),
    }
    sides = two(tmp_path, family.tuned[0] | more, family.tuned[1] | more)

    result = library.merge(library.make_recipe(list(sides), mix=["0.3", "0.7"]), tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert all(torch.equal(tensor, soup[name]) for name, tensor in more.items())
    assert result.copied == 3


@pytest.mark.fault("G2")
@pytest.mark.parametrize("value", [torch.arange(33) + 1, torch.zeros(33, dtype=torch.int64)])
def test_different_buffers_are_refused_or_taken_from_one(
    tmp_path: Path, family: Family, value: torch.Tensor
) -> None:
    """Integers have no mean: refused with the first element that differs; --buffers-from decides."""
    sides = two(tmp_path, family.tuned[0], changed(family.tuned[1], position_ids=value))

    error = refused(tmp_path, *sides)

    assert error.code == "E0303"
    assert f"element {0 if value[0] else 1} differs between 'one' and 'other'" in whats(error)
    assert "--buffers-from" in str(error.hint)
    recipe = library.make_recipe(list(sides), uniform=True, buffers_from="other")
    result = library.merge(recipe, tmp_path / "soup")
    assert torch.equal(value, read_tensors(tmp_path / "soup")["position_ids"])
    assert any("'position_ids' differs and is taken from 'other'" in note for note in result.notes)


@pytest.mark.fault("G3")
def test_batch_norm_is_averaged_with_a_warning(tmp_path: Path, family: Family) -> None:
    """Running statistics are averaged with a loud note; the counter comes from the largest λ."""
    rows = [
        {
            "bn.running_mean": torch.randn(4),
            "bn.running_var": torch.rand(4),
            "bn.num_batches_tracked": torch.tensor(n),
        }
        for n in (100, 200)
    ]
    sides = two(tmp_path, family.tuned[0] | rows[0], family.tuned[1] | rows[1])

    result = library.merge(library.make_recipe(list(sides), mix=["0.4", "0.6"]), tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert soup["bn.num_batches_tracked"].item() == 200
    assert torch.allclose(
        0.4 * rows[0]["bn.running_var"] + 0.6 * rows[1]["bn.running_var"], soup["bn.running_var"]
    )
    assert any("2 BatchNorm statistics" in note and "train mode" in note for note in result.notes)
