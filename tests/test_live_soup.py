"""Live soups: what is set into a module is what merge would write, bit for bit; all of it, or an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import adapters as zoo
import pytest
import torch
from checkpoints import Tensors, read_tensors, related, tensor_bytes, write_folder
from torch import nn

import rsoup
from rsoup.errors import IncompatibleError, UsageError
from rsoup.recipe import Ingredient
from rsoup.request import Request, RuleRequest, make

MIXES = [["1", "0"], ["0.3", "0.7"], ["1/3", "2/3"], ["0", "1"]]


def equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors are the same bytes of the same kind."""
    return one.dtype == other.dtype and one.shape == other.shape and tensor_bytes(one) == tensor_bytes(other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("with_base", [False, True])
def test_live_is_written(tmp_path: Path, dtype: torch.dtype, with_base: bool) -> None:
    """state_dict() and read() = the tensors of the merged file, for every λ in a row."""
    base, tuned = related(2, dtype=dtype)
    paths = [str(write_folder(tmp_path / f"e{i}", t, shards=2)) for i, t in enumerate(tuned)]
    given = {"base": str(write_folder(tmp_path / "base", base))} if with_base else {}
    with rsoup.open_soup(paths, **given) as soup:  # type: ignore[arg-type]
        assert soup.mix == (Fraction(1, 2), Fraction(1, 2))
        for number, mix in enumerate(MIXES):
            soup.set_mix(mix)
            out = tmp_path / f"soup{number}.safetensors"
            rsoup.merge(soup.recipe, out)
            written = read_tensors(out)
            found = soup.state_dict()
            assert found.keys() == written.keys()
            assert all(equal(found[name], written[name]) for name in written)
            assert equal(soup.read("embed.weight"), written["embed.weight"])


class Net(nn.Module):
    """Weights, a buffer of integers, a tied pair."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6))
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The body."""
        found: torch.Tensor = self.body(x)
        return found


def saved(tmp_path: Path, count: int = 2, dtype: torch.dtype = torch.float32) -> list[str]:
    """Folders of nets that differ."""
    from safetensors.torch import save_file

    paths = []
    for i in range(count):
        torch.manual_seed(i)
        folder = tmp_path / f"net{i}"
        folder.mkdir()
        save_file(Net(dtype).state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
        paths.append(str(folder))
    return paths


def test_a_module_in_training_takes_twenty_mixes(tmp_path: Path) -> None:
    """In place: the same parameters, seen by autograd and the optimiser, equal to the merged soup each time."""
    net = Net()
    own = dict(net.named_parameters())
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    with rsoup.open_soup(saved(tmp_path)) as soup:
        soup.load_into(net)
        for k in range(21):
            before = own["body.0.weight"]._version
            soup.set_mix([Fraction(k, 20), 1 - Fraction(k, 20)], model=net)
            assert all(equal(net.state_dict()[name], soup.read(name)) for name in soup.header)
            assert own["body.0.weight"]._version > before
        assert all(parameter is own[name] for name, parameter in net.named_parameters())
        assert all(parameter.requires_grad for parameter in net.parameters())
        net(torch.randn(4, 6)).sum().backward()
        weight = own["body.0.weight"].clone()
        optimiser.step()
        assert not torch.equal(weight, own["body.0.weight"])
        soup.load_into(net)
        assert equal(own["body.0.weight"].detach(), soup.read("body.0.weight"))


def test_every_tensor_is_placed_or_it_is_an_error(tmp_path: Path) -> None:
    """Missing, extra, of another shape, wrapped, narrower: refused with names, before anything is written."""
    paths = saved(tmp_path)
    with rsoup.open_soup(paths) as soup:

        class Other(Net):
            def __init__(self) -> None:
                super().__init__()
                self.more = nn.Linear(2, 2)
                self.body[3] = nn.Linear(8, 5)

        other = Other()
        before = {name: value.clone() for name, value in other.state_dict().items()}
        with pytest.raises(IncompatibleError) as refused:
            soup.load_into(other)
        assert refused.value.code == "E0312"
        assert "more.weight" in str(refused.value)
        assert "body.3.weight" in str(refused.value)
        assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
        with pytest.raises(IncompatibleError, match=r"model\.module"):
            soup.load_into(nn.DataParallel(Net()))
        half = Net(torch.float16)
        with pytest.raises(IncompatibleError) as narrow:
            soup.load_into(half)
        assert narrow.value.code == "E0313"
        soup.load_into(half, cast=True)
        assert torch.equal(half.body[0].weight, soup.read("body.0.weight").half())
        with pytest.raises(IncompatibleError):
            soup.load_into(Net().to("meta"))


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    """λ as strict as a recipe's; a closed soup is closed; a recipe says all itself."""
    paths = saved(tmp_path)
    soup = rsoup.open_soup(paths)
    with pytest.raises(UsageError) as refused:
        soup.set_mix(["0.5", "0.6"])
    assert refused.value.code == "E0203"
    assert soup.mix == (Fraction(1, 2), Fraction(1, 2))
    with pytest.raises(UsageError):
        rsoup.open_soup(soup.recipe, mix=["1", "0"])
    soup.close()
    with pytest.raises(ValueError, match="closed"):
        soup.state_dict()


def test_a_language_model_answers_as_its_written_soup(tmp_path: Path) -> None:
    """transformers: tied embeddings and all, logits equal to those of the merged folder."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True)  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    for name in ("a", "b"):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        model.save_pretrained(tmp_path / name)
    live = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    ids = torch.arange(12)[None]
    with rsoup.open_soup({n: str(tmp_path / n) for n in "ab"}, base=str(tmp_path / "base")) as soup:
        for mix in MIXES:
            soup.set_mix(mix, model=live)
            rsoup.merge(soup.recipe, tmp_path / "soup", overwrite=True)
            written = AutoModelForCausalLM.from_pretrained(tmp_path / "soup").eval()
            assert torch.equal(live(ids).logits, written(ids).logits)


def test_adapters_are_folded(tmp_path: Path) -> None:
    """θ₀ + Σ λᵢsᵢBᵢAᵢ in a live base model = merge --fold."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    from safetensors.torch import save_file

    (tmp_path / "base").mkdir()
    net = Net()
    save_file(net.state_dict(), tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    for i, name in enumerate("ab"):
        torch.manual_seed(i + 1)
        adapted = get_peft_model(
            Net(), LoraConfig(r=2, target_modules=["body.0", "body.3"], init_lora_weights=False)
        )
        adapted.save_pretrained(tmp_path / name)
    paths = {n: str(tmp_path / n) for n in "ab"}
    with rsoup.open_soup(paths, base=str(tmp_path / "base")) as soup:
        for mix in MIXES[1:3]:
            soup.set_mix(mix, model=net)
            rsoup.merge(rsoup.make_recipe(paths, mix=mix, base=str(tmp_path / "base"), fold=True, max_distance=100.0), tmp_path / "soup", overwrite=True)  # fmt: skip
            written = read_tensors(tmp_path / "soup" / "model.safetensors")
            assert all(equal(net.state_dict()[name], written[name]) for name in written)


RULES = (
    RuleRequest(("1", "0"), match="norm*"),
    RuleRequest(("1/5", "4/5"), layers="0"),
    RuleRequest(("0", "1"), match="scale"),
)
"""What a request has besides its ingredients and λ, and the λ and scales that are set one after the other."""
REQUESTS: dict[str, tuple[dict[str, Any], list[tuple[list[str], str]]]] = {
    "slerp": (
        {"method": "slerp"},
        [(["1/2", "1/2"], "1"), (["0.3", "0.7"], "1"), (["1", "0"], "1"), (["0.3", "0.7"], "1/2")],
    ),
    "slerp, one angle": (
        {"method": "slerp", "level": "global"},
        [(["1/2", "1/2"], "1"), (["0.3", "0.7"], "1"), (["0", "1"], "1"), (["0.3", "0.7"], "3/4")],
    ),
    "slerp, rules": (
        {"method": "slerp", "level": "global", "per_tensor": RULES},
        [(["1/2", "1/2"], "1"), (["0.1", "0.9"], "1")],
    ),
    "task arithmetic": (
        {"method": "task_arithmetic", "affine": True},
        [(["1.2", "-0.4"], "1"), (["1", "1"], "1/3"), (["0", "0"], "1"), (["0", "1"], "1")],
    ),
    "rules": ({"per_tensor": RULES}, [(["1/2", "1/2"], "1"), (["0", "1"], "1"), (["1/3", "2/3"], "2")]),
    "a type": ({"dtype": "float16", "drop": ["norm*"]}, [(["1/3", "2/3"], "1"), (["1", "0"], "1")]),
}


def holder(tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """A module whose state dict has these names, filled with something else."""
    model = nn.Module()
    for name, value in tensors.items():
        *path, last = name.split(".")
        at = model
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        if value.is_floating_point():
            at.register_parameter(last, nn.Parameter(torch.full_like(value, 7)))
        else:
            at.register_buffer(last, torch.full_like(value, 7))
    return model


def check_live(request: Request, steps: list[tuple[list[str], str]], folder: Path) -> None:
    """For each λ and scale in turn: live = what a merge of the same request writes, read and in a module."""
    soup = rsoup.open_soup(make(replace(request, mix=steps[0][0], scale=steps[0][1])))
    model = None
    with soup:
        for number, (mix, scale) in enumerate(steps):
            out = folder / f"soup{number}.safetensors"
            rsoup.merge(make(replace(request, mix=mix, scale=scale)), out)
            written = read_tensors(out)
            model = model or holder(written)
            soup.set_mix(mix, scale=scale, model=model)
            found, placed = soup.state_dict(), model.state_dict()
            assert found.keys() == written.keys()
            assert all(equal(found[name], value) for name, value in written.items())
            assert all(equal(placed[name], value) for name, value in written.items())


def folders(tmp_path: Path, tuned: Mapping[str, Tensors]) -> dict[str, str]:
    """Checkpoints on disk, by name."""
    return {name: str(write_folder(tmp_path / name, tensors)) for name, tensors in tuned.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", REQUESTS)
def test_every_request_is_live_as_it_is_written(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    """slerp of both levels, rules per tensor, scale, affine λ, dtype, drop: bit for bit merge's."""
    base, tuned = related(2, dtype=dtype, seed=3)
    paths = folders(tmp_path, {"base": base, "a": tuned[0], "b": tuned[1]})
    options, steps = REQUESTS[kind]
    request = Request([Ingredient(name, (paths[name],)) for name in "ab"], base=paths["base"], **options)

    check_live(request, steps, tmp_path)


def test_slerp_is_another_soup_and_its_levels_differ(tmp_path: Path) -> None:
    """Else the tests above would say nothing: linear, slerp by tensor and slerp by model differ live, too."""
    base, tuned = related(2, dtype=torch.float32, seed=3)
    paths = folders(tmp_path, {"base": base, "a": tuned[0], "b": tuned[1]})
    found = []
    for options in ({}, {"method": "slerp"}, {"method": "slerp", "level": "global"}):
        with rsoup.open_soup([paths["a"], paths["b"]], base=paths["base"], **options) as soup:
            found.append(soup.read("layers.0.weight"))
    assert not any(torch.equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_groups_are_live_as_they_are_written(tmp_path: Path, method: str) -> None:
    """Seeds of one reward under one λ, groups of different sizes, also at the vertices."""
    base, tuned = related(6, dtype=torch.bfloat16)
    paths = folders(tmp_path, {"base": base} | {str(i): tensors for i, tensors in enumerate(tuned)})
    groups = [("a", "012"), ("b", "3"), ("c", "45")]
    ingredients = [Ingredient(name, tuple(paths[i] for i in members)) for name, members in groups]
    request = Request(ingredients, base=paths["base"], method=method)
    mixes = [["1/2", "1/4", "1/4"], ["1", "0", "0"], ["0", "0.3", "0.7"], ["1/3", "1/3", "1/3"]]

    check_live(request, [(mix, "1") for mix in mixes], tmp_path)


def with_integers(tensors: Tensors, steps: int, ids: int) -> Tensors:
    """The checkpoint with a BatchNorm's counter and a buffer of integers of its own."""
    own = {"bn.num_batches_tracked": torch.tensor(steps), "position_ids": torch.arange(33) + ids}
    return {**tensors, **own, "bn.mask": torch.tensor([True, False])}


def test_counters_follow_the_largest_share(tmp_path: Path) -> None:
    """BatchNorm's counter is that of the ingredient with the largest λ, live as written, from one λ to the next."""
    base, tuned = related(2, dtype=torch.float32)
    parts = {"base": base, "a": tuned[0], "b": tuned[1]}
    paths = folders(tmp_path, {name: with_integers(parts[name], i, 0) for i, name in enumerate(parts)})
    request = Request([Ingredient(name, (paths[name],)) for name in "ab"], base=paths["base"])
    mixes = [["0.6", "0.4"], ["0.4", "0.6"], ["1/2", "1/2"], ["0", "1"], ["1", "0"]]

    check_live(request, [(mix, "1") for mix in mixes], tmp_path)
    with rsoup.open_soup([paths["a"], paths["b"]]) as soup:
        counts = []
        for mix in mixes:
            soup.set_mix(mix)
            counts.append(int(soup.read("bn.num_batches_tracked")))
    assert counts == [1, 2, 1, 2, 1]


@pytest.mark.parametrize("donor", ["a", "b", "base"])
def test_integers_that_differ_come_from_one(tmp_path: Path, donor: str) -> None:
    """--buffers-from is live as written for every λ, the vertices, where nothing differs, included."""
    base, tuned = related(2, dtype=torch.float32)
    parts = {"base": base, "a": tuned[0], "b": tuned[1]}
    paths = folders(tmp_path, {name: with_integers(parts[name], i, i) for i, name in enumerate(parts)})
    ingredients = [Ingredient(name, (paths[name],)) for name in "ab"]
    request = Request(ingredients, base=paths["base"], buffers_from=donor)

    check_live(request, [(mix, "1") for mix in MIXES], tmp_path)


def test_integers_that_differ_are_refused_for_those_mixes_only(tmp_path: Path) -> None:
    """E0303 where both have a share, as merge refuses it; the soup stays what it was."""
    _, tuned = related(2, dtype=torch.float32)
    paths = folders(tmp_path, {"a": with_integers(tuned[0], 0, 0), "b": with_integers(tuned[1], 0, 5)})
    ingredients = [Ingredient(name, (path,)) for name, path in paths.items()]

    check_live(Request(ingredients), [(["1", "0"], "1"), (["0", "1"], "1")], tmp_path)
    with rsoup.open_soup(make(Request(ingredients, mix=["1", "0"]))) as soup:
        with pytest.raises(IncompatibleError) as live:
            soup.set_mix(["1/2", "1/2"])
        with pytest.raises(IncompatibleError) as written:
            rsoup.merge(make(Request(ingredients, mix=["1/2", "1/2"])), tmp_path / "none")
        assert live.value.code == written.value.code == "E0303"
        assert soup.mix == (1, 0)
        assert equal(soup.read("position_ids"), torch.arange(33))


def test_a_scale_of_what_the_base_has_not_is_refused(tmp_path: Path, zoo_folder: Path) -> None:
    """E0345 for adapters that resized the vocabulary, as a merge refuses it; the soup stays, and scale 1 goes on."""
    made = zoo.make("resized", zoo_folder)
    ingredients = [Ingredient(name, (str(path),)) for name, path in zip("ab", made.adapters, strict=True)]
    request = Request(ingredients, base=str(made.base), fold=True)

    check_live(request, [(["0.6", "0.4"], "1"), (["1/3", "2/3"], "1"), (["0", "1"], "1")], tmp_path)
    with rsoup.open_soup(make(replace(request, mix=["0.3", "0.7"]))) as soup:
        before = soup.state_dict()
        with pytest.raises(IncompatibleError) as live:
            soup.set_mix(["0.5", "0.5"], scale="1/2")
        with pytest.raises(IncompatibleError) as written:
            rsoup.merge(make(replace(request, mix=["0.5", "0.5"], scale="1/2")), tmp_path / "none")
        assert live.value.code == written.value.code == "E0345"
        assert (soup.mix, soup.recipe.scale) == ((Fraction(3, 10), Fraction(7, 10)), 1)
        assert all(equal(value, before[name]) for name, value in soup.state_dict().items())
        soup.set_mix(["0.5", "0.5"])
        assert soup.mix == (Fraction(1, 2), Fraction(1, 2))
