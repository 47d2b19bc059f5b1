"""LoRA files that are not PEFT's folders: diffusers' mixed exactly, those of other tools known and refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import tree
from safetensors.torch import load_file, save_file

import rsoup as library
from rsoup.dialects import dialect_of, is_adapter_place
from rsoup.errors import IncompatibleError, RefusedFileError, RsoupError, UsageError
from rsoup.lora.adapter import read_adapter
from rsoup.storage.checkpoint import open_checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"
diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

Weights = dict[str, torch.Tensor]
Pipeline = Any  # diffusers.StableDiffusionPipeline, which has no types
FILE = "pytorch_lora_weights.safetensors"
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


def pipeline(folder: Path) -> Pipeline:
    """A tiny pipeline, the same at every call; its vocabulary is written to `folder`."""
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
    (folder / "vocab.json").write_text(json.dumps({**letters, "<|startoftext|>": 18, "<|endoftext|>": 19}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    return diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=text, tokenizer=tokenizer, scheduler=diffusers.DDIMScheduler(), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def trained(folder: Path, seed: int, **configs: object) -> Pipeline:
    """The pipeline with a LoRA in each of the components named, every factor of it drawn at random."""
    found = pipeline(folder)
    torch.manual_seed(seed)
    for component, config in configs.items():
        model = getattr(found, component)
        model.add_adapter(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "magnitude" in name:
                    parameter.add_(0.3)
                elif "lora_" in name:
                    parameter.copy_(0.1 * torch.randn_like(parameter))
    return found


def save(
    pipe: Pipeline,
    out: Path,
    *components: str,
    metadata: bool = True,
    form: Callable[[Weights], Weights] = dict,
) -> None:
    """The LoRA as diffusers saves it, with or without what its header says of the scaling."""
    layers = {f"{c}_lora_layers": form(peft.get_peft_model_state_dict(getattr(pipe, c))) for c in components}
    said = {
        f"{c}_lora_adapter_metadata": getattr(pipe, c).peft_config["default"].to_dict() for c in components
    }
    pipe.save_lora_weights(out, **layers, **(said if metadata else {}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, and LoRAs `one` and `two` of other ranks, scalings and modules; `plain` and `old` without metadata."""
    root = tmp_path_factory.mktemp("dialects")
    pipeline(root).save_pretrained(root / "base")
    lora = peft.LoraConfig
    convolved = lora(
        r=4, lora_alpha=8, target_modules=["to_q", "to_v", "conv1"], rank_pattern={"to_v": 2}, alpha_pattern={"to_v": 3}
    )  # fmt: skip
    one = trained(root, 1, unet=convolved, text_encoder=lora(r=2, lora_alpha=6, target_modules=["q_proj"]))
    save(one, root / "one", "unet", "text_encoder")
    one.unet.save_lora_adapter(root / "one-unet")
    two = trained(
        root,
        2,
        unet=lora(r=3, lora_alpha=5, target_modules=["to_q", "to_k", "conv1"], use_rslora=True),
        text_encoder=lora(r=3, lora_alpha=6, target_modules=["q_proj", "fc1"]),
    )
    save(two, root / "two", "unet", "text_encoder")
    two.unet.save_lora_adapter(root / "two-unet")
    save(two, root / "plain", "unet", metadata=False)
    linear = trained(root, 3, unet=lora(r=2, lora_alpha=9, target_modules=["to_q", "to_out.0"]))
    save(
        linear,
        root / "old",
        "unet",
        metadata=False,
        form=diffusers.utils.convert_state_dict_to_diffusers,
    )
    return root


def weights(pipe: Pipeline) -> Weights:
    """The tensors of the UNet and the text encoder, under their names in a pipeline, float64."""
    return {
        f"{part}/{name}": value.double()
        for part in ("unet", "text_encoder")
        for name, value in getattr(pipe, part).state_dict().items()
    }


def applied(made: Path, path: Path) -> Weights:
    """What diffusers makes of the pipeline with this LoRA."""
    pipe = pipeline(made)
    if path.name.endswith("-unet"):
        pipe.unet.load_lora_adapter(path, prefix=None, weight_name=FILE)
    else:
        pipe.load_lora_weights(path)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    return weights(pipe)


def dense(made: Path, shares: Mapping[str, float]) -> Weights:
    """θ₀ + Σλᵢ(θᵢ − θ₀) of what diffusers makes of each LoRA alone."""
    base = weights(pipeline(made))
    total = {name: value.clone() for name, value in base.items()}
    for name, share in shares.items():
        for tensor, value in applied(made, made / name).items():
            total[tensor] += share * (value - base[tensor])
    return total


def close(found: Weights, wanted: Weights) -> None:
    """Every tensor is within 10⁻⁵ of what it should be, relative to it; and there are all of them."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 1e-5 * value.norm(), name


def merge(out: Path, *paths: Path, mix: list[str], **options: object) -> library.MergeResult:
    """The soup of `paths` at `out`."""
    return library.merge(library.make_recipe(list(paths), mix=mix, **options), out)  # type: ignore[arg-type]


@pytest.mark.parametrize("shares", [("0.3", "0.7"), ("1.5", "-0.25")])
def test_a_soup_opens_in_diffusers(made: Path, tmp_path: Path, shares: tuple[str, str]) -> None:
    """Other ranks, patterns, rsLoRA, convolutions, two components, a folder and a file: diffusers applies the soup."""
    mix = list(shares)
    merge(tmp_path / "soup", made / "one", made / "two" / FILE, mix=mix, affine=sum(map(float, mix)) != 1)

    close(applied(made, tmp_path / "soup"), dense(made, dict(zip(("one", "two"), map(float, mix), strict=True))))  # fmt: skip
    assert {file.name for file in (tmp_path / "soup").iterdir()} == {FILE, "README.md", "rsoup.json"}
    assert "library_name: diffusers" in (tmp_path / "soup/README.md").read_text()


def test_the_forward_pass_is_that_of_the_soup(made: Path, tmp_path: Path) -> None:
    """The UNet with the loaded LoRA, not fused, computes what the dense soup computes."""
    merge(tmp_path / "soup", made / "one", made / "two", mix=["0.3", "0.7"])
    loaded, wanted = pipeline(made), pipeline(made)
    loaded.load_lora_weights(tmp_path / "soup")
    soup = dense(made, {"one": 0.3, "two": 0.7})
    wanted.unet.load_state_dict({name: soup[f"unet/{name}"].float() for name in wanted.unet.state_dict()})
    torch.manual_seed(5)
    inputs = torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 4, 8)

    with torch.no_grad():
        ours, theirs = loaded.unet(*inputs).sample, wanted.unet(*inputs).sample

    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_model_saved_alone(made: Path, tmp_path: Path) -> None:
    """What `save_lora_adapter` writes, without a component's name, mixes as well, with or without the metadata read."""
    merge(tmp_path / "soup-unet", made / "one-unet", made / "two-unet", mix=["0.3", "0.7"])
    wanted = dense(made, {"one-unet": 0.3, "two-unet": 0.7})

    close(applied(made, tmp_path / "soup-unet"), wanted)
    pipe = pipeline(made)
    pipe.unet.load_lora_adapter(load_file(tmp_path / "soup-unet" / FILE), prefix=None)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    close(weights(pipe), wanted)


def test_without_metadata_the_factors_are_the_update(made: Path, tmp_path: Path) -> None:
    """A header that says nothing means B·A, in PEFT's names and in those of diffusers before."""
    merge(tmp_path / "soup", made / "plain", made / "old", mix=["0.3", "0.7"])

    close(applied(made, tmp_path / "soup"), dense(made, {"plain": 0.3, "old": 0.7}))


def test_dora_on_its_base(made: Path, tmp_path: Path) -> None:
    """DoRA is exact where the base is named: a pipeline."""
    for seed in (1, 2):
        config = peft.LoraConfig(r=1 + seed, lora_alpha=4, target_modules=["to_q", "to_v"], use_dora=True)
        save(trained(made, seed, unet=config), tmp_path / f"dora{seed}", "unet")
    sides = [tmp_path / "dora1", tmp_path / "dora2"]
    merge(tmp_path / "soup", *sides, mix=["0.3", "0.7"], base=made / "base")

    one, two = (applied(made, side) for side in sides)
    close(applied(made, tmp_path / "soup"), {name: 0.3 * one[name] + 0.7 * two[name] for name in one})


def test_folded_into_a_pipeline(made: Path, tmp_path: Path) -> None:
    """With --fold the soup is a pipeline; LoRAs and pipelines mix with each other."""
    merge(tmp_path / "full", made / "one", made / "two", mix=["0.3", "0.7"], base=made / "base", fold=True)
    stacked = f"{made / 'base'}+{made / 'two' / FILE}"
    library.merge(
        library.make_recipe([tmp_path / "full", stacked], mix=["0.5", "0.5"], base=made / "base"),
        tmp_path / "both",
    )

    for name, shares in (("full", {"one": 0.3, "two": 0.7}), ("both", {"one": 0.15, "two": 0.85})):
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / name, safety_checker=None)
        close(weights(pipe), dense(made, shares))


def test_text_encoders_of_older_transformers(made: Path, tmp_path: Path) -> None:
    """`text_model.` before a module's name, as transformers wrote it before 5, is the same module without it."""
    old = tmp_path / "old"
    old.mkdir()
    renamed = {
        key.replace("text_encoder.encoder", "text_encoder.text_model.encoder"): value
        for key, value in load_file(made / "two" / FILE).items()
    }
    with open(made / "two" / FILE, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    save_file(renamed, old / FILE, metadata=head["__metadata__"])
    merge(tmp_path / "soup", made / "one", old, mix=["0.3", "0.7"])

    close(applied(made, tmp_path / "soup"), dense(made, {"one": 0.3, "two": 0.7}))
    both = {**renamed, **load_file(made / "two" / FILE)}
    save_file(both, old / FILE, metadata=head["__metadata__"])
    assert refusal(tmp_path / "no", old).code == "E0827"


def test_proofs(made: Path, tmp_path: Path) -> None:
    """A soup is made again bit for bit, checked as LoRAs are, and one with other scaling is seen to differ."""
    merge(tmp_path / "soup", made / "one", made / "two", mix=["0.3", "0.7"])
    library.verify(tmp_path / "soup", [made / "one", made / "two"], rederive=True, load=True)
    checked = library.check([made / "one", made / "two" / FILE], made / "base")
    assert checked.adapters is not None
    assert checked.mismatches == ()

    twin = tmp_path / "twin"
    shutil.copytree(made / "one", twin)
    save_file(load_file(twin / FILE), twin / FILE, metadata={"format": "pt"})
    found = library.diff(made / "one", twin)
    assert not found.tensors
    assert "unet.lora_alpha" in {key for row in found.files for key, _, _ in row.keys}
    assert library.diff(made / "one", made / "one").same


def test_one_of_them_alone_is_copied(made: Path, tmp_path: Path) -> None:
    """λ = 1 of one: its very tensors and metadata."""
    merge(tmp_path / "soup", made / "one", made / "two", mix=["1", "0"])

    ours, theirs = (open_checkpoint(str(path)) for path in (tmp_path / "soup", made / "one"))
    assert ours.metadata["lora_adapter_metadata"] == theirs.metadata["lora_adapter_metadata"]
    assert library.diff(tmp_path / "soup", made / "one").same
    ours.close()
    theirs.close()


def test_peft_and_diffusers_make_no_one_file(made: Path, tmp_path: Path) -> None:
    """E0346: a soup is one or the other. A server of language models takes none of these (E0206)."""
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=8, intermediate_size=16, num_attention_heads=2,
                                       num_hidden_layers=1, vocab_size=20))  # fmt: skip
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "peft")
    with pytest.raises(IncompatibleError) as error:
        merge(tmp_path / "no", made / "one", tmp_path / "peft", mix=["0.5", "0.5"])
    assert error.value.code == "E0346"
    assert "format" in {problem.where for problem in error.value.details}

    from rsoup.cli.merge_adapter import check_served
    from rsoup.lora.opening import opened
    from rsoup.lora.planning import planned

    recipe = library.make_recipe([made / "one", made / "two"], uniform=True)
    with opened(recipe) as ready, pytest.raises(UsageError) as usage:
        check_served("vllm", planned(ready, [(recipe, str(tmp_path / "no"))])[0])
    assert usage.value.code == "E0206"


def test_the_weights_of_a_peft_folder_named_by_themselves(tmp_path: Path) -> None:
    """`adapter_model.safetensors` beside its configuration is that folder; without it, half an adapter (E0812)."""
    paths = []
    for seed in (1, 2):
        torch.manual_seed(0)
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(hidden_size=8, intermediate_size=16, num_attention_heads=2,
                                           num_hidden_layers=1, vocab_size=20))  # fmt: skip
        config = peft.LoraConfig(r=seed, lora_alpha=3, target_modules=["q_proj"], init_lora_weights=False)
        peft.get_peft_model(model, config).save_pretrained(tmp_path / f"peft{seed}")
        paths.append(tmp_path / f"peft{seed}" / "adapter_model.safetensors")
    merge(tmp_path / "by-file", *paths, mix=["0.3", "0.7"])
    merge(tmp_path / "by-folder", *(path.parent for path in paths), mix=["0.3", "0.7"])

    for name in ("adapter_model.safetensors", "adapter_config.json"):
        ours, theirs = (tmp_path / by / name for by in ("by-file", "by-folder"))
        if name.endswith("json"):
            assert ours.read_bytes() == theirs.read_bytes()
        else:
            assert all(torch.equal(v, load_file(theirs)[k]) for k, v in load_file(ours).items())
    shutil.copy(paths[0], tmp_path / "alone.safetensors")
    assert refusal(tmp_path / "no", tmp_path / "alone.safetensors").code == "E0812"


def pairs(stem: str, down: str, up: str, rank: int = 2) -> Weights:
    """The two factors of one module of 8 × 8."""
    return {stem + down: torch.randn(rank, 8), stem + up: torch.randn(8, rank)}


def kohya() -> Weights:
    """What sd-scripts writes: alphas, other ranks, two components."""
    found: Weights = {}
    under = ATTENTION.replace(".", "_")
    stems = [f"lora_unet_{under}_{name}" for name in ("to_q", "to_v")]
    stems += [f"lora_te_text_model_encoder_layers_0_self_attn_{q}_proj" for q in ("q", "k", "v", "out")]
    for rank, stem in enumerate(stems, 1):
        found |= pairs(stem, ".lora_down.weight", ".lora_up.weight", min(rank, 2))
        found[f"{stem}.alpha"] = torch.tensor(1.0)
    return found


HADA = {f"lora_unet_x.hada_{part}": torch.randn(2, 2) for part in ("w1_a", "w1_b", "w2_a", "w2_b")}
LOKR = {f"lora_unet_x.lokr_{part}": torch.randn(2, 2) for part in ("w1", "w2")}
REFUSED: Mapping[str, tuple[Callable[[], Weights], str]] = {
    "kohya": (kohya, "save_lora_weights"),
    "kohya of Flux": (lambda: pairs("lora_unet_double_blocks_0_img_attn_proj", ".lora_down.weight", ".lora_up.weight"),
                      "transformer_lora_layers"),
    "kohya, dotted": (lambda: pairs("text_encoder.x", ".lora_down.weight", ".lora_up.weight"), "text_encoder_lora_layers"),
    "kohya of SDXL": (lambda: pairs("lora_te2_x", ".lora_down.weight", ".lora_up.weight"), "text_encoder_2_lora_layers"),
    "LoHa": (lambda: {**HADA, "lora_unet_x.alpha": torch.ones(())}, "full checkpoints"),
    "LoKr": (lambda: LOKR, "full checkpoints"),
    "LoKr, dotted": (lambda: {"transformer.x.lokr_w1": torch.ones(2, 2), "transformer.x.lokr_w2": torch.ones(2, 2)},
                     "full checkpoints"),
    "DoRA of kohya": (lambda: {**kohya(), "lora_unet_x.dora_scale": torch.ones(8)}, "full checkpoints"),
    "processors": (lambda: pairs(f"unet.{ATTENTION}.processor.to_q_lora", ".down.weight", ".up.weight"), "save_lora_weights"),
    "processors alone": (lambda: pairs(f"{ATTENTION}.processor.to_q_lora", ".down.weight", ".up.weight"), "save_lora_adapter"),
    "XLabs": (lambda: pairs("double_blocks.0.processor.qkv_lora1", ".down.weight", ".up.weight"), "save_lora_adapter"),
    "ComfyUI": (lambda: pairs("diffusion_model.blocks.0.q", ".lora_A.weight", ".lora_B.weight"), "transformer_lora_layers"),
    "MLX": (lambda: pairs("model.layers.0.q_proj", ".lora_a", ".lora_b"), "PEFT"),
}  # fmt: skip


def refusal(out: Path, *paths: Path) -> RsoupError:
    """The one refusal of a soup of `paths` and of a check of them; nothing is written or changed."""
    before = {path: tree(path) if path.is_dir() else path.read_bytes() for path in paths}
    found = []
    for work in (
        lambda: library.merge(library.make_recipe([*paths, *paths], uniform=True), out),
        lambda: library.check([*paths, *paths]),
    ):
        with pytest.raises(RsoupError) as error:
            work()
        found.append(error.value)
    assert {error.code for error in found} == {found[0].code}
    assert not out.exists()
    assert before == {path: tree(path) if path.is_dir() else path.read_bytes() for path in paths}
    return found[0]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("as_folder", [False, True])
def test_other_tools_are_refused_by_name(tmp_path: Path, name: str, as_folder: bool) -> None:
    """E0825 wherever such a file is opened, with what to do instead; a pickle of it as well."""
    make, way_out = REFUSED[name]
    tensors = make()
    (tmp_path / "lora").mkdir()
    path = tmp_path / "lora/style.safetensors"
    save_file(tensors, path)
    torch.save(tensors, tmp_path / "style.pt")

    for place in (path.parent if as_folder else path, tmp_path / "style.pt"):
        error = refusal(tmp_path / "no", place)
        assert (error.code, way_out in str(error.hint)) == ("E0825", True), error.hint
        for work in (library.diff, lambda a, _: library.check([a], a)):
            with pytest.raises(RefusedFileError, match="LoRA in the format"):
                work(place, place)


def test_a_pickled_lora_of_diffusers(made: Path, tmp_path: Path) -> None:
    """E0825: its scaling is nowhere; diffusers reads it."""
    torch.save(load_file(made / "one" / FILE), tmp_path / "pytorch_lora_weights.bin")

    assert refusal(tmp_path / "no", tmp_path / "pytorch_lora_weights.bin").code == "E0825"


@pytest.mark.parametrize("name", ["kohya", "processors", "processors alone"])
def test_the_conversion_works(made: Path, tmp_path: Path, name: str) -> None:
    """What the refusal says to type makes a LoRA that rsoup reads, and that means the same in diffusers."""
    path = tmp_path / "style.safetensors"
    save_file(REFUSED[name][0](), path)
    typed = str(refusal(tmp_path / "no", path).hint).split(" writes NAME")[0]
    alone = "-unet" if name == "processors alone" else ""
    out = tmp_path / f"converted{alone}"
    exec(typed.replace("'NAME'", repr(str(out))), {"pipe": pipeline(made)})

    pipe = pipeline(made)
    if alone:
        pipe.unet.load_lora_adapter(path, prefix=None)
    else:
        pipe.load_lora_weights(path)
    pipe.fuse_lora()
    wanted = {n.replace(".base_layer", ""): v for n, v in weights(pipe).items() if "lora_" not in n}
    close(applied(made, out), wanted)
    source = open_checkpoint(str(out))
    assert len(read_adapter(source).updates) == sum("down.weight" in key for key in load_file(path))
    source.close()


UNCERTAIN: Mapping[str, tuple[Weights, dict[str, object] | str | None, str]] = {
    "no component, no metadata": (pairs("blocks.0.q", ".lora_A.weight", ".lora_B.weight"), None, "E0827"),
    "a language model's": (pairs("transformer.h.0.attn", ".lora_A.weight", ".lora_B.weight"), None, "E0827"),
    "alphas beside": ({**pairs("transformer.q", ".lora_A.weight", ".lora_B.weight"), "transformer.q.alpha": torch.ones(())},
                      None, "E0827"),
    "both kinds of names": ({**pairs("unet.q", ".lora_A.weight", ".lora_B.weight"),
                             **pairs("q", ".lora_A.weight", ".lora_B.weight")}, {"r": 2, "unet.r": 2}, "E0827"),
    "metadata of something else": (pairs("q", ".lora_A.weight", ".lora_B.weight"), {"unet.r": 2}, "E0827"),
    "metadata that is no table": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), "[1]", "E0827"),
    "metadata that is no JSON": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), "{", "E0808"),
    "PiSSA": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), {"unet.r": 2, "unet.init_lora_weights": "pissa"}, "E0827"),
    "another type": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), {"unet.r": 2, "unet.peft_type": "ADALORA"}, "E0827"),
    "another rank": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), {"unet.r": 3}, "E0824"),
    "a component passed over": (pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), {"text_encoder.r": 2}, "E0824"),
    "half a pair": ({"unet.q.lora_A.weight": torch.ones(2, 8)}, None, "E0822"),
    "a whole tensor": ({**pairs("unet.q", ".lora_A.weight", ".lora_B.weight"), "unet.norm.weight": torch.ones(8)}, None, "E0821"),
    "an adapter's name": (pairs("unet.q", ".lora_A.default.weight", ".lora_B.default.weight"), None, "E0821"),
    "whole numbers": ({"unet.q.lora_A.weight": torch.ones(2, 8, dtype=torch.int8),
                       "unet.q.lora_B.weight": torch.ones(8, 2, dtype=torch.int8)}, None, "E0823"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCERTAIN)
def test_what_is_not_certain_is_refused(tmp_path: Path, name: str) -> None:
    """A LoRA of diffusers whose scaling its file does not settle, or that holds what has no place."""
    tensors, said, code = UNCERTAIN[name]
    text = said if isinstance(said, str) else json.dumps(said) if said is not None else None
    save_file(tensors, tmp_path / "style.safetensors", metadata={"lora_adapter_metadata": text} if text else None)  # fmt: skip

    assert refusal(tmp_path / "no", tmp_path / "style.safetensors").code == code


@pytest.mark.parametrize("layout", ["base_layer", "beside"])
def test_factors_inside_a_model(tmp_path: Path, layout: str) -> None:
    """E0826: a checkpoint whose layers carry factors beside their weights."""
    own = "q.base_layer.weight" if layout == "base_layer" else "q.weight"
    factors = pairs("model.q", ".lora_A.default.weight", ".lora_B.default.weight")
    save_file({f"model.{own}": torch.ones(8, 8), **factors, **{f"model.n{i}.weight": torch.ones(8) for i in range(9)}},
              tmp_path / "model.safetensors")  # fmt: skip

    assert refusal(tmp_path / "no", tmp_path / "model.safetensors").code == "E0826"


def test_a_pipeline_and_a_lora_in_one_folder(made: Path, tmp_path: Path) -> None:
    """E0809: which of them is meant is not for rsoup to say; the file can be named."""
    shutil.copytree(made / "base", tmp_path / "both")
    shutil.copy(made / "one" / FILE, tmp_path / "both" / FILE)

    assert refusal(tmp_path / "no", tmp_path / "both").code == "E0809"
    merge(tmp_path / "soup", tmp_path / "both" / FILE, made / "two", mix=["0.5", "0.5"])


def test_names_that_only_look_like_factors() -> None:
    """An architecture may call weights so; nothing that is not there is asked for."""
    native = {f"model.layers.{i}.{leaf}.weight": None for i in range(4) for leaf in ("q", "k", "lora_A", "v")}
    assert dialect_of(native) is None
    assert (
        dialect_of(["model.layers.0.attn.w_lora.lora.0.weight", "model.layers.0.attn.w_lora.lora.2.bias"])
        is None
    )
    assert dialect_of([]) is None
    assert dialect_of(["base_model.model.q.weight"]) is None
    assert not is_adapter_place("/nowhere")


def test_a_header_that_cannot_be_read_is_no_adapter(tmp_path: Path) -> None:
    """The peek at a file never fails; opening it says what is wrong."""
    path = tmp_path / "x.safetensors"
    for data in (
        b"",
        b"\xff" * 16,
        (4).to_bytes(8, "little") + b"lora",
        (6).to_bytes(8, "little") + b'"lora"',
    ):
        path.write_bytes(data)
        assert not is_adapter_place(str(path))
