"""Live soups: what is set into a module is what merge would write, bit for bit; all of it, or an error."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from checkpoints import read_tensors, related, tensor_bytes, write_folder
from torch import nn

import rsoup
from rsoup.errors import IncompatibleError, UsageError

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
