"""Folders: which files are the checkpoint, and which folders are refused, with the reason and the next step."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from checkpoints import Tensors, related, tensor_bytes, tree, write_file, write_folder
from warm import rsoup

from rsoup.errors import AccessError, RefusedFileError, RsoupError
from rsoup.library import make_recipe
from rsoup.merging import merge
from rsoup.storage.checkpoint import Leniency, open_checkpoint
from rsoup.storage.checkpoint_source import CheckpointSource
from rsoup.storage.files import safe_name

if TYPE_CHECKING:
    from conftest import Folders

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """What every checkpoint here holds."""
    return related(1).tuned[0]


@pytest.fixture
def folder(tmp_path: Path, tensors: Tensors) -> Path:
    """A folder with one weight file and a config.json."""
    return write_folder(tmp_path / "model", tensors)


@pytest.fixture
def sharded(tmp_path: Path, tensors: Tensors) -> Path:
    """A folder with three shards, their index and a config.json."""
    return write_folder(tmp_path / "sharded", tensors, shards=3)


def opened(path: Path, **options: object) -> CheckpointSource:
    """A checkpoint opened, its files closed again, for a look at what it says of itself."""
    source = open_checkpoint(str(path), **options)  # type: ignore[arg-type]
    source.close()
    return source


def refused(path: Path, code: str, says: str, **options: object) -> RsoupError:
    """The refusal that opening a path ends in; a merge with it refuses the same and leaves no trace."""
    before = tree(path.parent)

    with pytest.raises(RsoupError) as caught:
        opened(path, **options)
    assert (caught.value.code, caught.value.exit_code) == (code, 7 if code.startswith("E07") else 8)
    assert says in caught.value.message
    assert str(path) in str(caught.value.where)
    if not options:
        with pytest.raises(type(caught.value), match=r".") as again:
            merge(make_recipe([path], uniform=True), path.parent / "out")
        assert again.value.message == caught.value.message

    assert before == tree(path.parent)
    return caught.value


def index_of(sharded: Path) -> dict[str, object]:
    """The index of a sharded folder."""
    value = json.loads((sharded / INDEX).read_text())
    assert isinstance(value, dict)
    return value


def reindex(sharded: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Change the weight map of a sharded folder's index."""
    index = index_of(sharded)
    weight_map = index["weight_map"]
    assert isinstance(weight_map, dict)
    change(weight_map)
    (sharded / INDEX).write_text(json.dumps(index))


# What is read


def test_one_file_is_a_checkpoint(folder: Path, tensors: Tensors) -> None:
    """model.safetensors is the checkpoint, config.json goes along, and there is nothing to remark."""
    source = opened(folder)

    assert [layout.name for layout in source.files] == ["model.safetensors"]
    assert set(source.header) == set(tensors)
    assert (source.side_files, source.skipped_files, source.notes) == (("config.json",), (), ())
    assert source.name == "model"


def test_shards_are_read_in_order(sharded: Path, tensors: Tensors) -> None:
    """The shards an index lists are the checkpoint, in the order of their names; the index is not copied."""
    source = opened(sharded)

    assert [layout.name for layout in source.files] == SHARDS
    assert set(source.header) == set(tensors)
    assert source.side_files == ("config.json",)


def test_an_index_may_list_one_file(folder: Path, tensors: Tensors) -> None:
    """An index whose only shard is model.safetensors itself is one model, not two."""
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model.safetensors")}))

    assert [layout.name for layout in opened(folder).files] == ["model.safetensors"]


def test_diffusers_components_are_checkpoints(tmp_path: Path, tensors: Tensors) -> None:
    """A component's folder holds diffusion_pytorch_model.safetensors."""
    write_file(tmp_path / "diffusion_pytorch_model.safetensors", tensors)

    assert [layout.name for layout in opened(tmp_path).files] == ["diffusion_pytorch_model.safetensors"]


def test_a_lonely_file_of_any_name_is_read(tmp_path: Path, tensors: Tensors) -> None:
    """The only safetensors file of a folder is its checkpoint, whatever its name."""
    write_file(tmp_path / "policy.safetensors", tensors)

    assert [layout.name for layout in opened(tmp_path).files] == ["policy.safetensors"]


@pytest.mark.parametrize("shards", [1, 2])
def test_variants_are_chosen_by_name(tmp_path: Path, tensors: Tensors, shards: int) -> None:
    """Without --variant the plain weights are read, with it those of that name, and no other exists."""
    path = write_folder(tmp_path / "model", tensors)
    write_folder(path, {"half": torch.zeros(2), "more": torch.zeros(1)}, variant="fp16", shards=shards)

    plain, half = opened(path), opened(path, variant="fp16")

    assert set(plain.header) == set(tensors)
    assert set(half.header) == {"half", "more"}
    error = refused(path, "E0703", "there is no variant 'fp32'", variant="fp32")
    assert error.hint == "there are: fp16"


def test_an_only_variant_is_read_aloud(tmp_path: Path, tensors: Tensors) -> None:
    """Where there is one variant and nothing else it is read, and a note says so."""
    source = opened(write_folder(tmp_path / "model", tensors, variant="bf16"))

    assert source.notes == ("only the variant 'bf16' is there; it is used",)


def test_several_variants_ask_for_a_choice(tmp_path: Path, tensors: Tensors) -> None:
    """Two variants and no plain weights: the user chooses."""
    path = write_folder(tmp_path / "model", tensors, variant="bf16")
    write_folder(path, tensors, variant="fp16")

    assert refused(path, "E0703", "only variants: 'bf16' and 'fp16'").hint == "choose one: --variant bf16"


@pytest.mark.parametrize("variant", ["../model", "fp16/../..", "\x1b[31m", "a" * 300])
def test_a_variant_is_no_path(folder: Path, variant: str) -> None:
    """A variant that is no variant finds nothing and prints nothing but itself, escaped."""
    error = refused(folder, "E0703", "there is no variant", variant=variant)

    assert str(error).isprintable() or str(error).replace("\n", "").isprintable()


def test_what_goes_along(tmp_path: Path, tensors: Tensors) -> None:
    """Tokenizers, configs and licences go along; other weights, run state, code, cards and hidden files do not."""
    along = [
        "LICENSE",
        "assets/merges.txt",
        "chat_template.jinja",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
    ]
    skipped = [
        *(
            "README.md",
            "model.gguf",
            "modeling_tiny.py",
            "onnx/model.onnx",
            "optimizer.pt",
            "original/consolidated.00.pth",
        ),
        *(
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "rsoup.json",
            "scheduler.pt",
            "trainer_state.json",
        ),
        *("training_args.bin", "unet/diffusion_pytorch_model.safetensors"),
    ]
    unseen = [
        ".git/config",
        ".gitattributes",
        "checkpoint-500/model.safetensors",
        "checkpoint-500/config.json",
        "runs/x",
    ]
    path = write_folder(
        tmp_path / "model", tensors, config=None, side_files=dict.fromkeys([*along, *skipped, *unseen], "{}")
    )

    source = opened(path)

    assert sorted(source.side_files) == sorted(along)
    assert sorted(source.skipped_files) == sorted(skipped)


# Indexes and shards (C)

PLACES = [
    *("../x.safetensors", "../../x.safetensors", "/x.safetensors", "a/b.safetensors", "./model.safetensors"),
    *(
        "C:x.safetensors",
        "C:\\x.safetensors",
        "\\\\host\\share\\x.safetensors",
        "..\\x.safetensors",
        "a\\b.safetensors",
    ),
    *(
        "",
        ".",
        "..",
        "x",
        "model.bin",
        "x.safetensors\0",
        "x\n.safetensors",
        "\ud800.safetensors",
        "x.safetensors:s",
    ),
    "x" * 300 + ".safetensors",
]


@pytest.mark.fault("C1")
@pytest.mark.parametrize("place", PLACES)
def test_shards_lie_beside_their_index(sharded: Path, tensors: Tensors, place: str) -> None:
    """A shard's name that could lead anywhere else, on any system, is refused, though a file be there."""
    write_file(sharded.parent / "x.safetensors", tensors)
    reindex(sharded, lambda weight_map: weight_map.update(scale=place))

    error = refused(sharded, "E0811", "the index places tensor 'scale' in '")

    assert "which is not a shard beside it" in error.message
    assert error.message.isprintable()


@pytest.mark.fault("C1")
@pytest.mark.parametrize(
    "name", ["model-00001-of-00002.safetensors", "...safetensors", "модель.safetensors", "a b"]
)
def test_plain_names_are_safe(name: str) -> None:
    """Dots, spaces and other alphabets in a name are no danger."""
    assert safe_name(name)


def hub_cache(root: Path, tensors: Tensors, inside: str = "") -> Path:
    """A snapshot in a Hub cache: links into the blobs of its repository."""
    blobs = root / "models--org--name" / "blobs"
    snapshot = root / "models--org--name" / "snapshots" / ("0" * 40) / inside
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    write_file(blobs / "aaaa", tensors)
    (blobs / "bbbb").write_text("{}")
    up = os.path.relpath(blobs, snapshot)
    (snapshot / "model.safetensors").symlink_to(f"{up}/aaaa")
    (snapshot / "config.json").symlink_to(f"{up}/bbbb")
    return snapshot


@pytest.mark.fault("C2")
@pytest.mark.parametrize("inside", ["", "unet"])
def test_hub_caches_are_folders(tmp_path: Path, tensors: Tensors, inside: str) -> None:
    """Links from a snapshot, or a component in it, into its repository's blobs are followed, by any route."""
    snapshot = hub_cache(tmp_path, tensors, inside)
    (tmp_path / "shortcut").symlink_to(snapshot)

    assert set(opened(snapshot).header) == set(tensors)
    assert opened(tmp_path / "shortcut").side_files == ("config.json",)


@pytest.mark.fault("C2")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md", INDEX])
@pytest.mark.parametrize(
    "where", ["elsewhere", "models--org--other/blobs/aaaa", "models--org--name/blobs/deep/aaaa"]
)
def test_links_out_are_refused(tmp_path: Path, tensors: Tensors, name: str, where: str) -> None:
    """A link to another folder or another repository's blobs is refused, for every file that would be read."""
    snapshot = hub_cache(tmp_path, tensors)
    target = tmp_path / where
    target.parent.mkdir(parents=True, exist_ok=True)
    write_file(target, tensors) if name.endswith(".safetensors") else target.write_text(
        json.dumps({"weight_map": dict.fromkeys(tensors, "model.safetensors")})
    )
    (snapshot / name).unlink(missing_ok=True)
    (snapshot / name).symlink_to(target)

    error = refused(snapshot, "E0813", "this link leads out of the checkpoint's folder")

    assert str(error.where).endswith(f"/{name}")
    assert error.hint == "if that is meant: --allow symlinks"
    assert set(opened(snapshot, leniency=Leniency(symlinks=True)).header) == set(tensors)


@pytest.mark.fault("C2")
def test_links_inside_are_followed(folder: Path, tensors: Tensors) -> None:
    """A link to another file of the same folder is that file."""
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")

    assert set(opened(folder).header) == set(tensors)


@pytest.mark.fault("C3")
def test_missing_shards_are_named(sharded: Path) -> None:
    """Shards that are not there are counted and named, as what they are: an incomplete download."""
    (sharded / SHARDS[1]).unlink()

    error = refused(sharded, "E0811", f"1 of 3 shards are missing: '{SHARDS[1]}'")

    assert error.hint == "an incomplete download? fetch the rest"


@pytest.mark.fault("C3")
def test_shards_without_an_index_are_not_guessed(sharded: Path) -> None:
    """Shards alone do not say whether they are all."""
    (sharded / INDEX).unlink()

    refused(sharded, "E0811", "no index.json that says what is in them")


@pytest.mark.fault("C4")
def test_the_index_lists_what_is_not_there(sharded: Path) -> None:
    """A tensor the index lists and its shard lacks is refused, even if another shard has it."""
    reindex(sharded, lambda weight_map: weight_map.update(ghost=SHARDS[0]))
    refused(sharded, "E0811", "the index lists 'ghost', not in the shard it names")

    reindex(sharded, lambda weight_map: (weight_map.pop("ghost"), weight_map.update(scale=SHARDS[0])))
    refused(sharded, "E0811", "the index lists 'scale', not in the shard it names")


@pytest.mark.fault("C4")
def test_the_index_leaves_tensors_out(sharded: Path, tensors: Tensors) -> None:
    """A tensor the index does not list is refused, or with --allow unindexed read and remarked."""
    reindex(sharded, lambda weight_map: weight_map.pop("scale"))

    error = refused(sharded, "E0811", "the shards hold 'scale', which the index does not list")

    assert error.hint == "if they belong to the model: --allow unindexed"
    source = opened(sharded, leniency=Leniency(unindexed=True))
    assert set(source.header) == set(tensors)
    assert "1 tensors that the index does not list are read" in source.notes


@pytest.mark.fault("C5")
def test_a_tensor_has_one_place(sharded: Path, tensors: Tensors) -> None:
    """A tensor in two shards is refused, though both hold the same bytes."""
    listed = [name for name, shard in index_of(sharded)["weight_map"].items() if shard == SHARDS[0]]  # type: ignore[attr-defined]
    write_file(sharded / SHARDS[0], {name: tensors[name] for name in [*listed, "position_ids"]})

    refused(sharded, "E0811", "tensor 'position_ids' lies in two shards")


@pytest.mark.fault("C6")
@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("{}", "E0811", "no weight_map"),
        ("[]", "E0811", "no weight_map"),
        ('{"weight_map": []}', "E0811", "no weight_map"),
        ('{"weight_map": {}}', "E0811", "no weight_map"),
        ('{"weight_map": null}', "E0811", "no weight_map"),
        ('{"weight_map": {"scale": 1}}', "E0811", "names no file for tensor 'scale'"),
        ('{"weight_map": {"scale": ["x.safetensors"]}}', "E0811", "names no file for tensor 'scale'"),
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "E0808", "the key 'a' occurs twice"),
        ('{"weight_map": {}, "weight_map": {}}', "E0808", "the key 'weight_map' occurs twice"),
        ('{"weight_map": {"a": NaN}}', "E0808", "NaN is not JSON"),
        ("", "E0808", "not a JSON file"),
        ("{", "E0808", "not a JSON file"),
        ("\xff", "E0808", "it is not UTF-8"),
        ("[" * 5000, "E0808", "nested too deeply"),
        ('{"a": %s}' % ("9" * 5000), "E0808", "not a JSON file"),
    ],
)  # fmt: skip
def test_malformed_indexes_are_refused(sharded: Path, text: str, code: str, says: str) -> None:
    """An index that is no index ends in a refusal that says why."""
    (sharded / INDEX).write_bytes(text.encode("latin-1"))

    assert str(refused(sharded, code, says).where).endswith(INDEX)


@pytest.mark.fault("C6")
def test_huge_indexes_are_not_read(sharded: Path) -> None:
    """An index beyond 100 MB is refused by its size alone."""
    os.truncate(sharded / INDEX, 100_000_001)

    refused(sharded, "E0805", "the file has 100000001 bytes; 100000000 is the limit")


@pytest.mark.fault("C7")
@pytest.mark.parametrize(
    ("claimed", "remarked"),
    [(5, True), (5.0, True), (None, False), ("5", False), (1e999, False), ([], False)],
)
def test_wrong_totals_are_remarked(sharded: Path, tensors: Tensors, claimed: object, remarked: bool) -> None:
    """A wrong total_size in the index is a note; one that is no number is nothing."""
    index = index_of(sharded)
    index["metadata"] = {"total_size": claimed}
    (sharded / INDEX).write_text(json.dumps(index).replace("Infinity", "1e999"))
    total = sum(len(tensor_bytes(tensor)) for tensor in tensors.values())

    expected = (f"the index claims 5 bytes; the shards hold {total}",) if remarked else ()
    assert opened(sharded).notes == expected


@pytest.mark.fault("C8")
def test_two_models_in_one_folder(folder: Path, sharded: Path) -> None:
    """One file beside an index of other shards is two models; the message says who would load which."""
    for name in (*SHARDS, INDEX):
        shutil.copy(sharded / name, folder)

    error = refused(folder, "E0809", f"'model.safetensors' and '{SHARDS[0]}'")

    assert error.hint == "transformers would load one and vLLM the other; remove the files of the older one"


@pytest.mark.fault("C8")
def test_leftover_shards_of_an_older_save(folder: Path, sharded: Path, tensors: Tensors) -> None:
    """Shards beside a single file, and shards of another count beside the indexed ones, are an older model's."""
    shutil.copy(sharded / SHARDS[2], folder)
    refused(folder, "E0809", f"'model.safetensors' and '{SHARDS[2]}'")

    write_folder(sharded, tensors, shards=2)
    refused(
        sharded, "E0809", f"'model-00001-of-00002.safetensors' and '{SHARDS[0]}', '{SHARDS[1]}' and 1 more"
    )


@pytest.mark.fault("C8")
def test_two_files_and_no_index(tmp_path: Path, tensors: Tensors) -> None:
    """Two weight files without an index: the user names the one."""
    path = tmp_path / "model"
    path.mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        write_file(path / name, tensors)

    error = refused(path, "E0809", "several weight files and no index: 'a.safetensors' and 'b.safetensors'")

    assert error.hint == "name the one you mean: FOLDER/a.safetensors"


@pytest.mark.fault("C9")
def test_pickles_beside_safetensors_are_left_alone(folder: Path) -> None:
    """Where both formats lie the safetensors are read, and a note says so."""
    (folder / "pytorch_model.bin").write_bytes(b"never read")

    assert opened(folder).notes == ("model.safetensors is read; 'pytorch_model.bin' beside it is left alone",)


@pytest.mark.fault("C10")
def test_names_that_differ_in_case_are_remarked(folder: Path) -> None:
    """Two files that are one on other systems are read as two, with a note."""
    (folder / "Config.json").write_text("{}")
    if len(list(folder.glob("*onfig.json"))) == 1:
        pytest.skip("this file system does not tell case apart")

    assert "'Config.json' and 'config.json' differ only in case" in opened(folder).notes[0]


@pytest.mark.fault("C11")
def test_consolidated_weights_are_left_alone(folder: Path, tensors: Tensors) -> None:
    """Mistral's second layout beside the first is not read; alone it is refused, with the way to read it."""
    write_file(folder / "consolidated.safetensors", tensors)
    note = "'consolidated.safetensors' holds the same model in another layout and is left alone"
    assert opened(folder).notes == (note,)
    assert opened(folder).skipped_files == ("consolidated.safetensors",)

    (folder / "model.safetensors").unlink()
    error = refused(folder, "E0810", "only 'consolidated.safetensors' is here")
    assert error.hint == "name the file itself: FOLDER/consolidated.safetensors"
    assert set(opened(folder / "consolidated.safetensors").header) == set(tensors)


def test_other_weights_beside_are_remarked(folder: Path, tensors: Tensors) -> None:
    """Another safetensors file that is not read is said to be left alone."""
    write_file(folder / "value_head.safetensors", tensors)

    assert opened(folder).notes == (
        "model.safetensors is read; 'value_head.safetensors' beside it is left alone",
    )


# What is no checkpoint

FOREIGN: Mapping[str, tuple[list[str], str, str, str]] = {
    "training state": (["optimizer.pt", "rng_state.pth"], "E0810", "only the state of a training run is here", "the folder of the model"),
    "two of them": (["model.ckpt", "x.pth"], "E0809", "several weight files and no index: 'model.ckpt' and 'x.pth'", "FOLDER/model.ckpt"),
    "GGUF": (["model-Q4_K_M.gguf"], "E0810", "packed for llama.cpp: 'model-Q4_K_M.gguf'", "convert_hf_to_gguf.py SOUP"),
    "ONNX": (["model.onnx"], "E0810", "a program of ONNX, not a checkpoint", "optimum-cli export onnx"),
    "MLX": (["weights.npz"], "E0810", "stored for MLX or Core ML", "mlx_lm.convert"),
    "Flax": (["flax_model.msgpack"], "E0810", "stored for TensorFlow or Flax", "from_flax"),
    "a distributed checkpoint": (["__0_0.distcp"], "E0810", "a part of a distributed checkpoint (DCP)", "dcp_to_torch FOLDER model.pt"),
    "DeepSpeed": (["zero_to_fp32.py", "latest"], "E0810", "a checkpoint of DeepSpeed", "zero_to_fp32.py . OUT"),
    "FSDP": (["__0_1.bin", "__0_0.bin"], "E0809", "several weight files", "FOLDER/__0_0.bin"),
    "ranks of verl": (["model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"], "E0810", "the ranks of an FSDP run", "verl.model_merger"),
    "an empty pipeline": (["model_index.json", "unet/config.json"], "E0810", "there are no weights", "model.safetensors"),
    "half an adapter": (["adapter_config.json"], "E0812", "without adapter_model.safetensors", "fetch or save it again"),
    "an adapter's pickle": (["adapter_model.bin"], "E0812", "without adapter_config.json", "fetch or save it again"),
    "an adapter and a model": (["adapter_config.json", "adapter_model.safetensors", "model.safetensors"], "E0809", "two models", "remove"),
    "nothing": (["config.json"], "E0810", "there are no weights in this folder", "model.safetensors"),
    "an empty folder": ([], "E0810", "there are no weights in this folder", "model.safetensors"),
    "weights one level down": (["inner/model.safetensors"], "E0810", "there are no weights in this folder", "model.safetensors"),
    "a folder of that name": (["model.safetensors/x"], "E0810", "there are no weights in this folder", "model.safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, what: str) -> None:
    """A folder without weights rsoup mixes is refused by what it is, with what to do instead."""
    files, code, says, hint = FOREIGN[what]
    path = tmp_path / "model"
    path.mkdir()
    for name in files:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("{}")

    assert hint in str(refused(path, code, says).hint)


@pytest.mark.parametrize("scheme", ["https://example.org/model.safetensors", "hdfs://host/model"])
def test_addresses_are_not_paths(scheme: str) -> None:
    """What lies elsewhere is fetched first."""
    with pytest.raises(
        RefusedFileError, match="rsoup reads checkpoints of this machine, of the Hub and of object stores"
    ) as caught:
        open_checkpoint(scheme)
    assert (caught.value.code, caught.value.where) == ("E0810", scheme)


def test_too_many_files_are_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with files without end, a home for one, is refused before they are all looked at."""
    monkeypatch.setattr("rsoup.storage.folder.MAX_FILES", 10)
    path = tmp_path / "home"
    path.mkdir()
    for i in range(11):
        (path / f"{i}.txt").touch()

    refused(path, "E0810", "more than 10 files")


def test_too_deep_folders_are_no_checkpoint(tmp_path: Path) -> None:
    """Folders nested without end are refused."""
    deep = tmp_path / "home" / Path(*"abcdefghij")
    deep.mkdir(parents=True)
    (deep / "x").touch()

    refused(tmp_path / "home", "E0810", "or folders 8 deep")


# Paths that are no files (A30, A31), and files one may not read


def test_what_is_not_there(tmp_path: Path) -> None:
    """A path that leads nowhere says so; so do one through a file, one too long and an empty one."""
    (tmp_path / "file").write_text("")

    refused(tmp_path / "none", "E0701", "no such file or folder")
    refused(tmp_path / "file" / "x", "E0701", "it cannot be opened: Not a directory")
    with pytest.raises(AccessError, match="too long"):
        open_checkpoint("x" * 300)
    with pytest.raises(AccessError, match="no such file or folder"):
        open_checkpoint("")
    with pytest.raises(AccessError, match="null"):
        open_checkpoint("a\0b")


def special(path: Path, kind: str) -> None:
    """Something at `path` that is no regular file."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, ExitStack() as stack:
            here = os.open(path.parent, os.O_RDONLY)  # a socket's path has 108 bytes at most
            stack.callback(os.close, here)
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    else:
        path.symlink_to("nothing")


KINDS = {
    "pipe": "this is a pipe, not a regular file",
    "socket": "this is a socket",
    "endless device": "this is a device, not a regular file",
    "loop": "the symbolic links go round in a loop",
    "broken link": "this link points to nothing",
}
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and /dev/zero")


@needs_linux
@pytest.mark.fault("A30", "A31")
@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    """A pipe, a socket, an endless device, a loop, a link to nothing: refused at once, never waited for."""
    path = tmp_path / "w.safetensors"
    special(path, kind)

    with pytest.raises(RefusedFileError) as caught:
        open_checkpoint(str(path))
    assert (caught.value.code, caught.value.where) == ("E0807", str(path))
    assert KINDS[kind] in caught.value.message


@needs_linux
@pytest.mark.fault("A30", "A31")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "README.md", INDEX])
def test_only_regular_files_are_taken_from_a_folder(folder: Path, name: str, kind: str) -> None:
    """The same inside a folder, for weights and for what goes along, before any work is done."""
    (folder / name).unlink(missing_ok=True)
    special(folder / name, kind)

    with pytest.raises(RefusedFileError) as caught:
        open_checkpoint(str(folder), leniency=Leniency(symlinks=True))
    assert caught.value.code == "E0807"
    assert KINDS[kind] in caught.value.message
    assert caught.value.where == f"{folder}/{name}"


@needs_linux
@pytest.mark.fault("A30")
def test_a_pipe_does_not_hang_the_command(two_models: list[str], base_and_two: Folders) -> None:
    """A whole merge with a pipe for weights ends by itself with exit class 8 and leaves nothing."""
    path = base_and_two.one / "model.safetensors"
    path.unlink()
    os.mkfifo(path)

    done = rsoup("merge", *two_models, "--uniform", "-o", base_and_two.root / "out", timeout=30)

    assert done.returncode == 8
    assert "this is a pipe, not a regular file" in done.stderr
    assert sorted(item.name for item in base_and_two.root.iterdir()) == ["base", "one", "two"]


@contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder in which this process has no more rights than any user; root is somebody else meanwhile."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    try:
        yield root
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in root.rglob("*"):
            path.chmod(0o700)
        shutil.rmtree(root)


def become_nobody() -> None:
    """Give up root's right to read everything, until `as_nobody` ends."""
    if os.getuid() == 0:
        os.seteuid(65534)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "sub", ""])
def test_files_one_may_not_read(tensors: Tensors, name: str) -> None:
    """A file or folder without permission is named, with exit class 7, before any work is done."""
    with as_nobody() as root:
        path = write_folder(root / "model", tensors, side_files={"sub/x": b""})
        for item in (path, *path.rglob("*")):
            item.chmod(0o755)
        become_nobody()
        try:
            opened(path)
        except AccessError:
            pytest.skip("another user cannot read temporary files here")
        if os.getuid() == 0:
            os.seteuid(0)
        (path / name).chmod(0)
        become_nobody()

        with pytest.raises(AccessError, match="no permission to read it") as caught:
            open_checkpoint(str(path))
    assert (caught.value.code, caught.value.exit_code) == ("E0702", 7)
    assert str(caught.value.where).rstrip("/") == str(path / name)


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("runs/Llama-2-7b", "a model of the Hub would be hf://runs/Llama-2-7b"),
        ("one,two", "NAME=PATH,PATH"),
        ("./nothing/here/at/all", "check the spelling"),
    ],
)
def test_what_was_meant_is_guessed(
    uri: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that leads nowhere is told by what it looks like: a repository of the Hub, a group without a name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    with pytest.raises(AccessError) as error:
        open_checkpoint(uri)

    assert error.value.code == "E0701"
    assert hint in (error.value.hint or "")
