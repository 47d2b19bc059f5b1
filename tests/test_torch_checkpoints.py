"""What torch.save wrote, as ingredient and as soup: merged, opened by torch, compared with the average by hand."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from checkpoints import Family, Tensors, read_tensors, write_file, write_folder
from contracts import FileSourceContract
from refusals import refused, whats

import rsoup as library
from rsoup.errors import RefusedFileError, UsageError
from rsoup.storage.checkpoint import open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource

MIX = ["0.3", "0.7"]


def loaded(path: Path) -> Tensors:
    """What torch itself reads, copied and mapped into memory alike."""
    copied: Tensors = torch.load(path, weights_only=True)
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert all(torch.equal(copied[name], mapped[name]) for name in copied)
    return copied


def by_hand(one: Tensors, other: Tensors) -> Tensors:
    """The average in float64, rounded once; integers as they are."""
    return {
        name: (value.double() * 0.3 + other[name].double() * 0.7).to(value.dtype) if value.is_floating_point() else value
        for name, value in one.items()
    }  # fmt: skip


def same(one: Tensors, other: Tensors) -> bool:
    """The same names, dtypes and values."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def saved(path: Path, value: object, **options: object) -> Path:
    """A file torch.save wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path, **options)  # type: ignore[arg-type]
    return path


class TestTorchFile(FileSourceContract):
    """A file torch.save wrote, under the contract of every source."""

    side_files: Mapping[str, bytes] = MappingProxyType({})
    trailer = 1200

    def open(self, name: str, tensors: Tensors) -> CheckpointSource:
        """The file in a folder of its own."""
        return open_checkpoint(str(saved(self.root / name / "mine.pt", tensors)))

    def open_again(self) -> CheckpointSource:
        """By the file's path."""
        return open_checkpoint(str(self.weight_files()[0]))

    def weight_files(self) -> list[Path]:
        """The one."""
        return [self.root / "source/mine.pt"]


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.fault("D2")
def test_files_in_and_out(tmp_path: Path, family: Family, ending: str, old: bool) -> None:
    """Two files of torch.save, of either format, become one that torch reads, right to the last bit."""
    one, other = family.tuned
    paths = [
        saved(tmp_path / f"{n}.{ending}", t, _use_new_zipfile_serialization=not old)
        for n, t in (("a", one), ("b", other))
    ]

    result = library.merge(library.make_recipe(paths, mix=MIX), tmp_path / f"soup.{ending}")

    assert same(loaded(tmp_path / f"soup.{ending}"), by_hand(one, other))
    assert result.files == (f"soup.{ending}", "soup.rsoup.json")
    assert zipfile.ZipFile(tmp_path / f"soup.{ending}").testzip() is None
    library.verify(tmp_path / f"soup.{ending}", paths, rederive=True, load=True)


@pytest.mark.fault("D16")
def test_a_training_checkpoint(tmp_path: Path, family: Family) -> None:
    """The one table of tensors in a training checkpoint is found and said, `--key` chooses among several."""
    one, other = family.tuned
    plain = saved(tmp_path / "plain.pt", one)
    nested = saved(
        tmp_path / "nested.pt",
        {"state_dict": other, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 7},
    )
    double = saved(tmp_path / "double.pt", {"model": one, "ema": other})

    result = library.merge(library.make_recipe([plain, nested], mix=MIX), tmp_path / "soup.pt")
    with pytest.raises(UsageError) as error:
        library.merge(library.make_recipe([double, nested], mix=MIX), tmp_path / "soup-2.pt")
    keyed = library.make_recipe([double, double], mix=MIX, key="ema")
    library.merge(keyed, tmp_path / "soup-3.safetensors")

    assert same(loaded(tmp_path / "soup.pt"), by_hand(one, other))
    assert any("the weights are those under 'state_dict'" in note for note in result.notes)
    assert error.value.code == "E0215"
    assert "--key" in str(error.value)
    assert same(read_tensors(tmp_path / "soup-3.safetensors"), other)


@pytest.mark.parametrize("shards", [1, 3])
def test_folders_of_pytorch_model_bin(tmp_path: Path, family: Family, shards: int) -> None:
    """A folder with pytorch_model.bin, single or sharded, mixes with one of safetensors and comes out as either."""
    one, other = family.tuned
    first = write_folder(tmp_path / "first", other)
    second = tmp_path / "second"
    names = list(one)
    parts = [names[i::shards] for i in range(shards)]
    files = (
        ["pytorch_model.bin"]
        if shards == 1
        else [f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" for i in range(shards)]
    )
    for file, part in zip(files, parts, strict=True):
        saved(second / file, {name: one[name] for name in part})
    if shards > 1:
        weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        (second / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
    (second / "config.json").write_bytes((first / "config.json").read_bytes())

    library.merge(library.make_recipe([second, first], mix=MIX), tmp_path / "soup")
    library.merge(library.make_recipe([second, first], mix=MIX, file_format="torch"), tmp_path / "pickled")

    assert same(read_tensors(tmp_path / "soup"), by_hand(one, other))
    inside = {n: t for file in sorted((tmp_path / "pickled").glob("*.bin")) for n, t in loaded(file).items()}
    assert same(inside, by_hand(one, other))
    assert {file.name for file in (tmp_path / "pickled").glob("*.bin")} == set(files)
    assert {file.name.replace("model", "pytorch_model").replace("safetensors", "bin") for file in (tmp_path / "soup").glob("*.safetensors")} == set(files)  # fmt: skip
    assert same(inside, read_tensors(tmp_path / "soup"))
    library.verify(tmp_path / "pickled", [str(second), str(first)], rederive=True, load=True)


def test_a_network_with_batch_norm(tmp_path: Path) -> None:
    """A CNN's state dict: weights averaged, the counter copied, statistics averaged with a loud note; it loads strictly."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 3),
    )
    states = []
    for _ in range(2):
        net(torch.randn(8, 1, 4, 4))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.01 * torch.randn_like(parameter))
        states.append({name: value.clone() for name, value in net.state_dict().items()})
    states[0]["1.num_batches_tracked"].fill_(9)
    paths = [saved(tmp_path / f"{i}.pt", state) for i, state in enumerate(states)]

    result = library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup.pt")

    net.load_state_dict(loaded(tmp_path / "soup.pt"), strict=True)
    assert int(net.state_dict()["1.num_batches_tracked"]) == int(states[1]["1.num_batches_tracked"])
    assert any("BatchNorm" in note for note in result.notes)
    expected = by_hand(states[0], states[1])
    assert torch.equal(net.state_dict()["1.running_var"], expected["1.running_var"])


@pytest.mark.fault("D7")
def test_tied_and_transposed_tensors(tmp_path: Path) -> None:
    """Tensors that share a storage, or lie in it the other way round, are mixed by their values; the tie is said."""
    sides = []
    for i in range(2):
        matrix = torch.arange(12.0).reshape(3, 4) + i
        sides.append(
            {"embed.weight": matrix, "lm_head.weight": matrix, "flipped": matrix.t(), "part": matrix[1:, ::2]}
        )
    paths = [saved(tmp_path / f"{i}.pt", side) for i, side in enumerate(sides)]

    result = library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup.pt")

    assert same(loaded(tmp_path / "soup.pt"), by_hand(*sides))
    assert any("'embed.weight' and 'lm_head.weight' are one tensor" in note for note in result.notes)


@pytest.mark.fault("D12")
def test_a_flipped_bit_is_found_before_anything_is_written(tmp_path: Path, family: Family) -> None:
    """The checksums that torch.save wrote, and torch ignores, are compared."""
    one, other = family.tuned
    good, bad = saved(tmp_path / "good.pt", one), saved(tmp_path / "bad.pt", other)
    data = bytearray(bad.read_bytes())
    source = open_checkpoint(str(bad))
    place = source._where["embed.weight"][0].place("embed.weight")
    source.close()
    assert place is not None
    data[place + 1000] ^= 4
    bad.write_bytes(data)

    torch.load(bad, weights_only=True)
    with pytest.raises(RefusedFileError) as error:
        library.merge(library.make_recipe([good, bad], mix=MIX), tmp_path / "soup.pt")

    assert error.value.code == "E0816"
    assert not (tmp_path / "soup.pt").exists()


@pytest.mark.fault("C9")
def test_safetensors_are_read_where_both_lie(tmp_path: Path, family: Family) -> None:
    """Beside safetensors a pytorch_model.bin is left alone, and that is said."""
    one, other = family.tuned
    folder = write_folder(tmp_path / "both", one)
    saved(folder / "pytorch_model.bin", other)

    source = open_checkpoint(str(folder))

    assert source.files[0].name == "model.safetensors"
    assert source.notes == ("model.safetensors is read; 'pytorch_model.bin' beside it is left alone",)


def test_the_state_of_a_run_is_no_model(tmp_path: Path, family: Family) -> None:
    """optimizer.pt, scheduler.pt and their like beside the weights are never taken for them."""
    folder = tmp_path / "run"
    saved(folder / "model.pt", family.base)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        saved(folder / name, {"state": torch.ones(2)})

    assert open_checkpoint(str(folder)).files[0].name == "model.pt"


def test_formats_mix(tmp_path: Path, family: Family) -> None:
    """A .pt and a .safetensors file of the same tensors mix, into whichever format the output's name says."""
    one, other = family.tuned
    paths = [saved(tmp_path / "a.pt", one), write_file(tmp_path / "b.safetensors", other)]

    library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup.pt")
    library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "again.safetensors")

    assert same(loaded(tmp_path / "soup.pt"), by_hand(one, other))
    assert same(read_tensors(tmp_path / "again.safetensors"), by_hand(one, other))


def test_other_tensors_are_refused_as_in_safetensors(tmp_path: Path, family: Family) -> None:
    """What is compared does not depend on the format."""
    one, other = family.tuned
    extra = {**other, "extra": torch.zeros(2)}
    error = refused(tmp_path, saved(tmp_path / "a.pt", one), saved(tmp_path / "b.pt", extra))

    assert "'extra'" in whats(error)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.fault("G4")
def test_quantised_layers_are_not_lost(tmp_path: Path) -> None:
    """A state dict whose quantised layers are packed into tuples is refused: without them it would be no model."""
    paths = []
    for i in range(2):
        packed = (torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8), torch.randn(4))
        state = {
            "fc.scale": torch.tensor(1.0),
            "fc._packed_params._packed_params": packed,
            "norm.weight": torch.ones(4),
        }
        paths.append(saved(tmp_path / f"{i}.pt", state))

    with pytest.raises(RefusedFileError) as error:
        library.merge(library.make_recipe(paths, mix=MIX), tmp_path / "soup.pt")

    assert error.value.code == "E0818"
    assert "fc._packed_params._packed_params" in error.value.message


@pytest.mark.fault("D16")
def test_a_key_is_asked_of_those_that_have_it(tmp_path: Path, family: Family) -> None:
    """Experts with `model` and `ema` and a base that is a bare state dict mix by --key, and all of it is said."""
    one, other = family.tuned
    base = saved(tmp_path / "base.pt", family.base)
    paths = [
        saved(tmp_path / f"{n}.pt", {"model": family.base, "ema": t}) for n, t in (("a", one), ("b", other))
    ]

    result = library.merge(library.make_recipe(paths, mix=MIX, base=base, key="ema"), tmp_path / "soup.pt")

    assert same(loaded(tmp_path / "soup.pt"), by_hand(one, other))
    assert any("it has no 'ema' and is a state dict itself" in note for note in result.notes)
    assert any("the weights are those under 'ema'; not read: 'model'" in note for note in result.notes)


def test_options_that_mean_nothing_are_refused(tmp_path: Path, family: Family) -> None:
    """--key without a PyTorch file, --optimizer-from without an archive, a format against the ending: E0206."""
    sides = [write_folder(tmp_path / n, t) for n, t in zip("ab", family.tuned, strict=True)]
    for out, options in (
        ("soup", {"key": "model"}),
        ("soup", {"optimizer_from": "a"}),
        ("soup.safetensors", {"file_format": "torch"}),
        ("soup.pt", {"file_format": "safetensors"}),
    ):
        with pytest.raises(UsageError) as error:
            library.merge(library.make_recipe(sides, mix=MIX, **options), tmp_path / out)  # type: ignore[arg-type]
        assert error.value.code == "E0206"


def test_a_tensor_safetensors_cannot_hold(tmp_path: Path) -> None:
    """A tensor called `__metadata__` is refused for safetensors, and stored by torch."""
    paths = [
        saved(tmp_path / f"{i}.pt", {"__metadata__": torch.ones(2) * i, "w": torch.ones(2)}) for i in range(2)
    ]
    recipe = library.make_recipe(paths, mix=MIX)

    with pytest.raises(UsageError) as error:
        library.merge(recipe, tmp_path / "never.safetensors")
    library.merge(recipe, tmp_path / "soup.pt")

    assert error.value.code == "E0218"
    assert loaded(tmp_path / "soup.pt").keys() == {"__metadata__", "w"}


def test_a_variant_that_was_not_asked_for_names_nothing(tmp_path: Path, family: Family) -> None:
    """A base that has only a variant does not make the soup one: its files have the names loaders look for."""
    one, other = family.tuned
    sides = [write_folder(tmp_path / n, t) for n, t in (("a", one), ("b", other))]
    base = write_folder(tmp_path / "base", family.base, variant="fp16", shards=2)

    result = library.merge(library.make_recipe(sides, mix=MIX, base=base), tmp_path / "soup")

    assert "model-00001-of-00002.safetensors" in result.files
    assert "model.safetensors.index.json" in result.files
    assert same(read_tensors(tmp_path / "soup"), by_hand(one, other))


@pytest.mark.parametrize("out", ["soup.pt", "soup"])
@pytest.mark.fault("H10")
def test_an_interrupted_merge_goes_on(tmp_path: Path, family: Family, out: str) -> None:
    """A soup in torch's format that was stopped half way ends with the same bytes, checksums and all."""
    paths = [saved(tmp_path / f"{n}.pt", t) for n, t in zip("ab", family.tuned, strict=True)]
    recipe = library.make_recipe(paths, mix=MIX, file_format="torch" if out == "soup" else None)
    library.merge(recipe, tmp_path / f"whole-{out}")

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.merge(recipe, tmp_path / out, progress=stop)
    library.merge(recipe, tmp_path / out)

    one, other = tmp_path / out, tmp_path / f"whole-{out}"
    if out == "soup":
        one, other = (next(path.glob("*.bin")) for path in (one, other))
        assert one.read_bytes() == other.read_bytes()
    else:  # the folder inside the archive is called as the file is
        assert same(loaded(one), loaded(other))
    assert zipfile.ZipFile(one).testzip() is None


def test_identical_ingredients_are_said(tmp_path: Path, family: Family) -> None:
    """The same files given twice are mixed, and that is said."""
    path = saved(tmp_path / "a.pt", family.tuned[0])

    result = library.merge(library.make_recipe({"one": path, "two": path}, mix=MIX), tmp_path / "soup.pt")

    assert same(loaded(tmp_path / "soup.pt"), family.tuned[0])
    assert any("'one' and 'two' are the same files: their λ add up" in note for note in result.notes)
