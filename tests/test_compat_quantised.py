"""Codes and scales are no weights: every way of quantising is recognised, and nothing ordinary is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints import CONFIG, Family, read_tensors
from refusals import header, refused, two, whats

import rsoup as library
from rsoup.compat.quantised import quantised
from rsoup.tensors import DTYPES, Header, TensorSpec

LAYER = "model.layers.0.mlp.up_proj"
QUANTISED = {
    "bnb int8": ("bitsandbytes", header(weight="I8 8 8", SCB="F32 8", weight_format="U8")),
    "bnb nf4": (
        "bitsandbytes",
        header(
            weight="U8 32 1", weight__absmax="U8 1", weight__nested_absmax="F32 1", weight__nested_quant_map="F32 256",
            weight__quant_map="F32 16", weight__quant_state__bitsandbytes__nf4="U8 90",
        ),
    ),
    "GPTQ": ("GPTQ or AWQ", header(qweight="I32 1 8", qzeros="I32 1 1", scales="F16 1 8", g_idx="I32 8")),
    "AWQ": ("GPTQ or AWQ", header(qweight="I32 8 1", qzeros="I32 1 1", scales="F16 1 8")),
    "compressed-tensors int4": ("compressed-tensors", header(weight_packed="I32 8 1", weight_scale="BF16 8 1", weight_shape="I64 2")),
    "compressed-tensors int8": ("I8 with scales", header(weight="I8 8 8", weight_scale="BF16 8 1")),
    "compressed-tensors fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale="BF16 8 1")),
    "NVFP4": ("compressed-tensors", header(weight_packed="U8 8 4", weight_scale="F8_E4M3 8 1", weight_global_scale="F32 1", input_global_scale="F32 1")),
    "NVFP4 of modelopt": ("NVFP4", header(weight="U8 8 4", weight_scale="F8_E4M3 8 1", weight_scale_2="F32", input_scale="F32")),
    "block fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale_inv="F32 1 1")),
    "block fp8, ue8m0": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale_inv="F8_E8M0 1 1")),
    "DeepSeek's own": ("fp8 with scales", header(weight="F8_E4M3 8 8", scale="F32 1 1")),
    "fbgemm fp8": ("fp8 with scales", header(weight="F8_E4M3 8 8", weight_scale="F32 8 1", input_scale_ub="F32 1")),
    "torchao": ("torchao", header(_weight_qdata="I8 8 8", _weight_scale="BF16 8")),
    "EETQ": ("EETQ", header(weight="I8 8 8", weight_scales="F16 8")),
    "HQQ": ("HQQ or SINQ", header(W_q="U8 4 8", scale="F16 8 1", zero="F16 8 1", nbits="I64", axis="I64")),
    "AQLM": ("AQLM", header(codes="I8 8 1 1", codebooks="F16 1 256 1 8", scales="F16 8 1 1 1")),
    "VPTQ": ("VPTQ", header(indices="I32 1 8 8", centroids__weight="F16 1 64")),
    "quanto": ("quanto", header(weight___data="I8 8 8", weight___scale="F32 8 1", input_scale="F32", output_scale="F32")),
    "HIGGS": ("HIGGS", header(weight="I16 2 8", scales="F16 8 1", tables="F16 16", tables2="F16 16 16 2")),
    "BitNet": ("U8 with scales", header(weight="U8 2 8", weight_scale="BF16 1")),
    "MLX": ("MLX", header(weight="U32 8 1", scales="BF16 8 1", biases="BF16 8 1")),
    "F4": ("F4", header(weight="F4 8 8")),
}  # fmt: skip


@pytest.mark.fault("G4", "G5", "G6", "G8")
@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_checkpoints_are_recognised(name: str) -> None:
    """Codes and their scales are recognised by what each method writes, without a word in config.json."""
    method, tensors = QUANTISED[name]
    layer = {f"{LAYER}.{key}": spec for key, spec in tensors.items()}

    found = quantised("m", {**layer, "model.norm.weight": TensorSpec(DTYPES["BF16"], (8,))}, None)

    assert found is not None
    assert f"'m' is quantised ({method})" in found.what
    assert found.guess == "mix the original checkpoints, then quantise the soup"


@pytest.mark.fault("G8")
def test_mxfp4_experts_are_recognised() -> None:
    """gpt-oss as published: blocks of codes and exponents in bytes, called `_blocks` and `_scales`."""
    tensors = header(
        mlp__experts__gate_up_proj_blocks="U8 2 8 1 16", mlp__experts__gate_up_proj_scales="U8 2 8 1",
        mlp__experts__gate_up_proj_bias="BF16 2 8",
    )  # fmt: skip

    found = quantised("m", tensors, {"quantization_config": {"quant_method": "mxfp4"}})

    assert found is not None
    assert "'m' is quantised (MXFP4; config.json says mxfp4)" in found.what


@pytest.mark.fault("G4", "G5")
def test_a_quantised_ingredient_is_refused(tmp_path: Path, family: Family) -> None:
    """One quantised ingredient refuses the soup with its method, its tensors and the right order of work."""
    packed = {
        f"{LAYER}.qweight": torch.zeros(1, 8, dtype=torch.int32),
        f"{LAYER}.qzeros": torch.zeros(1, 1, dtype=torch.int32),
        f"{LAYER}.scales": torch.zeros(1, 8).half(),
    }
    sides = two(tmp_path, family.tuned[0], family.tuned[1] | packed)

    error = refused(tmp_path, *sides)

    assert error.code == "E0302"
    assert error.exit_code == 3
    assert "1 of 2 checkpoints is quantised" in error.message
    assert "'other' is quantised (GPTQ or AWQ)" in whats(error)
    assert error.hint == "mix the original checkpoints, then quantise the soup"


@pytest.mark.fault("G4")
def test_a_config_that_says_quantised_over_plain_weights(tmp_path: Path, family: Family) -> None:
    """A quantization_config left behind by a dequantised model is refused with what to take out of which file."""
    config = {**CONFIG, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    sides = two(tmp_path, *family.tuned, config=config)

    error = refused(tmp_path, *sides)

    assert error.code == "E0302"
    assert "says it is quantised (bitsandbytes), and its tensors are plain numbers" in whats(error)
    assert "take quantization_config out of its config.json" in whats(error)


@pytest.mark.fault("G6")
def test_fp8_codes_beside_scales_are_refused(tmp_path: Path) -> None:
    """fp8 weights with scales are codes: their average is wrong wherever the scales differ."""
    rows = [
        {"w.weight": torch.randn(8, 8).to(torch.float8_e4m3fn), "w.weight_scale_inv": torch.tensor([[s]])}
        for s in (1.0, 1.7)
    ]

    error = refused(tmp_path, *two(tmp_path, *rows))

    assert error.code == "E0302"
    assert "fp8 with scales" in whats(error)


@pytest.mark.fault("G7")
def test_bare_fp8_is_mixed_with_a_note(tmp_path: Path) -> None:
    """fp8 without scales is an ordinary, very coarse number: mixed in float64, with a note about its few bits."""
    rows = [{"w.weight": torch.randn(8, 8).to(torch.float8_e4m3fn)} for _ in range(2)]
    sides = two(tmp_path, *rows)

    result = library.merge(library.make_recipe(list(sides), uniform=True), tmp_path / "soup")

    assert any(
        "stored in fp8 without scales" in note and "'w.weight'; --dtype bfloat16" in note
        for note in result.notes
    )
    expected = (rows[0]["w.weight"].double() + rows[1]["w.weight"].double()) / 2
    soup = read_tensors(tmp_path / "soup")["w.weight"]
    assert torch.equal(expected.to(torch.float8_e4m3fn).view(torch.uint8), soup.view(torch.uint8))


@pytest.mark.parametrize(
    "tensors",
    [
        header(quantizer__codebooks="F32 4 8 8", quantizer__scale="F32 1"),
        header(attn__scale="F32 1", attn__relative_position_index="I64 8 8", attn__weight="F32 8 8"),
        header(norm__scale="F32 8", norm__bias="F32 8", embed__position_ids="I64 1 8"),
        header(
            h__0__attn__bias="U8 1 1 8 8",
            h__0__attn__c_attn__weight="F32 8 24",
            h__0__attn__masked_bias="F32",
        ),
        header(blocks__0__weight="F32 8 8", layer_scales="F32 8", num_blocks="F32 8"),
    ],
)
def test_ordinary_names_are_not_mistaken(tensors: Header) -> None:
    """Tensors called scale, codebooks or blocks are weights as long as no codes lie beside them."""
    assert quantised("m", tensors, {"quantization_config": None}) is None
