"""Pipelines of diffusers: a soup per component, everything else copied, opened by diffusers again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from refusals import refused, whats

import rsoup as library
from rsoup.errors import RefusedFileError, UsageError

os.environ["HF_HUB_OFFLINE"] = "1"
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny latent diffusion pipeline, `base`, and two fine-tunes of its UNet and text encoder; one also sharded and pickled."""
    root = tmp_path_factory.mktemp("pipelines")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=8, norm_num_groups=2, attention_head_dim=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=[4],
        down_block_types=["DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D"],
        norm_num_groups=2,
    )
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(hidden_size=8, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1,
                                    vocab_size=20, max_position_embeddings=16)
    )  # fmt: skip
    letters = {letter: i for i, letter in enumerate("abcdefghijklmnopqr")}
    (root / "vocab.json").write_text(json.dumps({**letters, "<|startoftext|>": 18, "<|endoftext|>": 19}))
    (root / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(root / "vocab.json"), str(root / "merges.txt"))
    pipeline = diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=text, tokenizer=tokenizer, scheduler=diffusers.DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(root / "base")
    for name in ("one", "two"):
        with torch.no_grad():
            for part in (unet, text):
                for parameter in part.parameters():
                    parameter.add_(0.01 * torch.randn_like(parameter))
        pipeline.save_pretrained(root / name)
    pipeline.save_pretrained(root / "two-sharded", max_shard_size="30KB")
    pipeline.save_pretrained(root / "two-pickled", safe_serialization=False)
    pipeline.save_pretrained(root / "two-fp16", variant="fp16")
    return root


def states(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of every component, as diffusers loads them."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(path, safety_checker=None)
    return {part: getattr(pipeline, part).state_dict() for part in PARTS}


def check(soup: Path, pipelines: Path) -> None:
    """The pipeline at `soup` is 0.3 of one and 0.7 of two."""
    one, two, mixed = states(pipelines / "one"), states(pipelines / "two"), states(soup)
    for part in PARTS:
        for name, value in one[part].items():
            if value.is_floating_point():
                expected = (value.double() * 0.3 + two[part][name].double() * 0.7).to(value.dtype)
                assert torch.equal(mixed[part][name], expected), f"{part}/{name}"


@pytest.mark.parametrize("second", ["two", "two-sharded", "two-pickled", "two-fp16"])
def test_a_soup_of_pipelines_opens_as_one(pipelines: Path, tmp_path: Path, second: str) -> None:
    """However its components are stored, a pipeline mixes, and diffusers opens the soup with everything in its place."""
    paths = [pipelines / "one", pipelines / second]
    result = library.merge(
        library.make_recipe(paths, mix=["0.3", "0.7"], base=pipelines / "base"), tmp_path / "soup"
    )

    check(tmp_path / "soup", pipelines)
    for name in (
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
    ):
        assert (tmp_path / "soup" / name).read_bytes() == (pipelines / "one" / name).read_bytes()
    assert set(result.files) >= {f"{part}/config.json" for part in PARTS}
    assert "library_name: diffusers" in (tmp_path / "soup/README.md").read_text()
    library.verify(tmp_path / "soup", paths, base=str(pipelines / "base"), rederive=True, load=True)


def test_what_nobody_fine_tuned_is_the_same_bytes(pipelines: Path, tmp_path: Path) -> None:
    """The VAE, equal in all, comes out bit for bit."""
    recipe = library.make_recipe([pipelines / "one", pipelines / "two"], mix=["0.3", "0.7"])
    library.merge(recipe, tmp_path / "soup")

    soup, base = states(tmp_path / "soup")["vae"], states(pipelines / "base")["vae"]
    assert all(torch.equal(soup[name], base[name]) for name in base)


@pytest.mark.parametrize("size", [None, "20KB"])
def test_pipelines_in_torchs_format(pipelines: Path, tmp_path: Path, size: str | None) -> None:
    """With `--file-format torch` diffusers opens the soup too: it reads no shards of .bin, so there are none."""
    recipe = library.make_recipe(
        [pipelines / "one", pipelines / "two-sharded"],
        mix=["0.3", "0.7"],
        file_format="torch",
        max_shard_size=size,
    )
    library.merge(recipe, tmp_path / "soup")

    check(tmp_path / "soup", pipelines)
    assert [file.name for file in (tmp_path / "soup/unet").glob("*.bin")] == ["diffusion_pytorch_model.bin"]


def test_sharding_stays_inside_components(pipelines: Path, tmp_path: Path) -> None:
    """`--max-shard-size` splits each component in its own folder, with an index of its own."""
    recipe = library.make_recipe(
        [pipelines / "one", pipelines / "two"], mix=["0.3", "0.7"], max_shard_size="20KB"
    )
    library.merge(recipe, tmp_path / "soup")

    check(tmp_path / "soup", pipelines)
    index = json.loads((tmp_path / "soup/unet/diffusion_pytorch_model.safetensors.index.json").read_text())
    assert all("/" not in file for file in index["weight_map"].values())


def test_one_component_alone(pipelines: Path, tmp_path: Path) -> None:
    """A component's folder mixes like any model."""
    recipe = library.make_recipe([pipelines / "one/unet", pipelines / "two/unet"], mix=["0.3", "0.7"])
    library.merge(recipe, tmp_path / "unet")

    soup = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet").state_dict()
    one, two = (states(pipelines / name)["unet"] for name in ("one", "two"))
    assert all(torch.equal(soup[n], (one[n].double() * 0.3 + two[n].double() * 0.7).float()) for n in one)


@pytest.mark.fault("F13")
def test_components_that_differ_are_refused(pipelines: Path, tmp_path: Path) -> None:
    """A component's configuration counts like a model's, under its name."""
    other = tmp_path / "other"
    shutil.copytree(pipelines / "two", other)
    config = json.loads((other / "unet/config.json").read_text())
    (other / "unet/config.json").write_text(json.dumps({**config, "cross_attention_dim": 16}))

    error = refused(tmp_path, pipelines / "one", other)

    assert "unet_config.cross_attention_dim is 8 in 'one' and 16 in 'other'" in whats(error)


def test_a_pipeline_is_a_folder(pipelines: Path, tmp_path: Path) -> None:
    """A pipeline does not fit into one file, and is refused before anything is written."""
    recipe = library.make_recipe([pipelines / "one", pipelines / "two"], uniform=True)

    with pytest.raises(UsageError) as error:
        library.merge(recipe, tmp_path / "soup.safetensors")

    assert error.value.code == "E0214"


def test_a_killed_pipeline_merge_resumes(pipelines: Path, tmp_path: Path) -> None:
    """Staging with subfolders is taken up again and gives the same bytes."""
    recipe = library.make_recipe([pipelines / "one", pipelines / "two"], mix=["0.3", "0.7"])
    library.merge(recipe, tmp_path / "whole")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.merge(recipe, tmp_path / "soup", progress=stop)
    library.merge(recipe, tmp_path / "soup")

    for name in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (tmp_path / "soup" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.fault("F13")
def test_other_schedules_are_refused(pipelines: Path, tmp_path: Path) -> None:
    """A model that predicts noise and one that predicts velocity are not averaged: prediction_type counts."""
    other = tmp_path / "other"
    shutil.copytree(pipelines / "two", other)
    config = json.loads((other / "scheduler/scheduler_config.json").read_text())
    (other / "scheduler/scheduler_config.json").write_text(
        json.dumps({**config, "prediction_type": "v_prediction"})
    )

    error = refused(tmp_path, pipelines / "one", other)

    assert "scheduler_config.prediction_type is epsilon in 'one' and v_prediction in 'other'" in whats(error)


def test_components_of_a_variant_are_loaded_as_such(pipelines: Path, tmp_path: Path) -> None:
    """`verify --load` asks diffusers for the files that there are: those of `--variant fp16`."""
    parts = [str(pipelines / "two-fp16" / "unet")] * 2
    library.merge(library.make_recipe(parts, uniform=True, variant="fp16"), tmp_path / "unet")

    assert (tmp_path / "unet/diffusion_pytorch_model.fp16.safetensors").exists()
    assert library.verify(tmp_path / "unet", load=True).levels[-1].differences == ()


@pytest.mark.parametrize("text", ["{bad", "[]"])
@pytest.mark.parametrize("broken", ["one", "two"])
def test_a_pipeline_that_no_library_reads_is_refused(
    pipelines: Path, tmp_path: Path, broken: str, text: str
) -> None:
    """E0808, whichever ingredient it is: a broken model_index.json is not copied into a soup."""
    for name in ("one", "two"):
        shutil.copytree(pipelines / name, tmp_path / name)
    (tmp_path / broken / "model_index.json").write_text(text)

    with pytest.raises(RefusedFileError) as error:
        library.merge(
            library.make_recipe([tmp_path / "one", tmp_path / "two"], uniform=True), tmp_path / "soup"
        )

    assert error.value.code == "E0808"
    assert not (tmp_path / "soup").exists()
