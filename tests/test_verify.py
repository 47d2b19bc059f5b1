"""rsoup verify: whatever is altered in a soup, its manifest or its ingredients is found, and told apart."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import Tensors, read_tensors, related, write_file, write_folder
from conftest import Folders
from faults import big_models
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import Warm

import rsoup
from rsoup.errors import (
    AccessError,
    IncompatibleError,
    MismatchError,
    RefusedFileError,
    RsoupError,
    UsageError,
)
from rsoup.proof.canonical import places, recipe_of
from rsoup.proof.claims import canonical_sha256
from rsoup.proof.sampling import BLOCK_BYTES, block_count, draw, parse_sample
from rsoup.proof.verdict import VerifyResult
from rsoup.recipe import CANONICAL_OPTIONS, Ingredient, Recipe, Rule
from rsoup.request import Request, RuleRequest, make
from rsoup.tensors import DTYPES, TensorSpec

NONCE = "00112233445566778899aabbccddeeff"
SIDE = {"tokenizer_config.json": '{"a": 1}', "notes/readme.txt": "text\n"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A warm interpreter for this file's command lines."""
    interpreter = Warm(tmp_path_factory.mktemp("warm"))
    yield interpreter
    interpreter.close()


@pytest.fixture
def soup(tmp_path: Path, base_and_two: Folders) -> Path:
    """0.3·one + 0.7·two in two shards, with files beside them; one, two and base lie beside it."""
    for folder in (base_and_two.one, base_and_two.two):
        shutil.rmtree(folder)
    for folder, tensors in zip((base_and_two.one, base_and_two.two), base_and_two.family.tuned, strict=True):
        write_folder(folder, tensors, shards=2, side_files=SIDE)
    recipe = rsoup.make_recipe({"one": base_and_two.one, "two": base_and_two.two}, mix=["0.3", "0.7"])
    rsoup.merge(recipe, tmp_path / "soup")
    return tmp_path / "soup"


def ended(out: Path, *ingredients: Path, **options: Any) -> int:
    """The exit code of a verification."""
    try:
        rsoup.verify(out, ingredients, **options)
    except RsoupError as error:
        return error.exit_code
    return 0


def found(out: Path, ingredients: Any = (), **options: Any) -> VerifyResult:
    """What a verification finds that does not hold."""
    with pytest.raises(MismatchError) as error:
        rsoup.verify(out, ingredients, **options)
    assert error.value.code == "E0901"
    assert isinstance(error.value.result, VerifyResult)
    return error.value.result


def whats(result: VerifyResult) -> str:
    """All differences as one text."""
    return "\n".join(f"{d.where}: {d.what}" for level in result.levels for d in level.differences)


def flip(file: Path, at: int, mask: int = 1) -> None:
    """Change one byte of a file."""
    data = bytearray(file.read_bytes())
    data[at] ^= mask
    file.write_bytes(data)


def edit(soup: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest, and write it as rsoup would."""
    value = json.loads((soup / "rsoup.json").read_bytes())
    change(value)
    (soup / "rsoup.json").write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


# --- levels 0 and 1 ----------------------------------------------------------------------------------------------


def test_a_soup_holds(soup: Path) -> None:
    """A soup that nobody touched holds at both levels, and says how much was looked at."""
    result = rsoup.verify(soup)

    assert [(level.name, level.number, level.holds) for level in result.levels] == [
        ("structure", 0, True),
        ("digests", 1, True),
    ]
    assert (
        result.nbytes
        == sum(f.stat().st_size for f in soup.rglob("*") if f.is_file())
        - (soup / "rsoup.json").stat().st_size
    )


@pytest.mark.fault("H16", "H17")
def test_every_changed_byte_of_every_file_is_found(soup: Path) -> None:
    """One flipped bit, anywhere in any file but in the manifest's account of the run, is a mismatch or malformed."""
    for file in sorted(path for path in soup.rglob("*") if path.is_file() and path.name != "rsoup.json"):
        data = file.read_bytes()
        head = 8 + int.from_bytes(data[:8], "little") if file.suffix == ".safetensors" else 0
        positions = {
            0,
            len(data) // 2,
            len(data) - 1,
            *range(0, head, 7),
            head - 1,
            head,
            *range(head, len(data), 4999),
        }
        for at in sorted(p for p in positions if 0 <= p < len(data)):
            for mask in (1, 128):
                flip(file, at, mask)
                assert ended(soup, threads=1) in (8, 9), f"{file.name}, byte {at}, mask {mask}"
                flip(file, at, mask)
    assert ended(soup) == 0


@pytest.mark.fault("H16")
def test_a_changed_byte_of_the_manifest_is_found(soup: Path) -> None:
    """One flipped bit in the manifest is found, but in what only it knows: run, versions, contents of the ingredients."""
    file = soup / "rsoup.json"
    data = file.read_text()
    value = json.loads(data)
    unknown = {f"rsoup.json:{key}" for key in ("run", "tool")}
    missed = []
    for at in range(0, len(data), 5):
        changed = data[:at] + chr(ord(data[at]) ^ 1) + data[at + 1 :]
        file.write_bytes(changed.encode("latin-1"))
        if ended(soup, threads=1) not in (8, 9):
            now = json.loads(changed)
            missed += [key for key in value if value[key] != now.get(key)]
    file.write_text(data)

    assert {*missed} <= {"run", "tool", "ingredients", "overrides", "checks", "files_from"}, unknown
    assert missed.count("checks") <= 2


def test_fields_of_the_manifest_fit_each_other(soup: Path) -> None:
    """A field that follows from others is held against them."""
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "recipe": lambda v: v["recipe"]["canonical"]["ingredients"][0].update(
            {"lambda": "0.30000000000000001"}
        ),
        "ingredients": lambda v: v["ingredients"].reverse(),
        "base": lambda v: v.update(base={"checkpoint": "base", "content": None}),
        "files_from": lambda v: v.update(files_from="three"),
        "checks": lambda v: v["checks"].update(mixed=4),
        "checks.dropped": lambda v: v["checks"].update(dropped=["scale"]),
        "checks.nonfinite_kept": lambda v: v["checks"].update(nonfinite_kept={"w": 1}),
        "checks.distances": lambda v: v["checks"].update(distances={}),
        "overrides": lambda v: v.update(overrides=["--drop w"]),
        "content": lambda v: v.update(content="0" * 64),
    }
    original = (soup / "rsoup.json").read_bytes()
    for field, change in changes.items():
        edit(soup, change)
        assert field in whats(found(soup)), field
        (soup / "rsoup.json").write_bytes(original)
    (soup / "rsoup.json").write_bytes(original.replace(b"\n", b"\n\n", 1))
    assert "it is not written as rsoup writes JSON" in whats(found(soup))


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(schema="rsoup-manifest/2"),
        lambda v: v.update(arithmetic="rsoup-arith/2"),
        lambda v: v.update(digest="rsoup-digest/2"),
        lambda v: v.pop("content"),
        lambda v: v.pop("subject"),
        lambda v: v.update(subject=[]),
        lambda v: v["subject"].append(v["subject"][0]),
        lambda v: v["subject"][0].update(name="../x"),
        lambda v: v["subject"][0].update(name="/x"),
        lambda v: v["subject"][0].update(name=3),
        lambda v: v["subject"][0].update(size=-1),
        lambda v: v["subject"][0].update(digest="abc"),
        lambda v: v["subject"][0].pop("digest"),
        lambda v: v.update(tensors=[]),
        lambda v: v.update(checks=3),
        lambda v: v.update(run=None),
        lambda v: v["recipe"].update(canonical=[]),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_understood(soup: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Another version, a field that is missing or of another form, a path that leads out: E0830."""
    edit(soup, change)

    with pytest.raises(RefusedFileError) as error:
        rsoup.verify(soup)

    assert error.value.code == "E0830"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1, "schema": 2}', "\x00"])
def test_a_manifest_that_is_no_json(soup: Path, text: str) -> None:
    """What is no JSON object is refused."""
    (soup / "rsoup.json").write_text(text)

    assert ended(soup) == 8


def test_a_soup_without_a_manifest(soup: Path, tmp_path: Path) -> None:
    """No manifest: E0730; nothing at all: E0701."""
    (soup / "rsoup.json").unlink()

    with pytest.raises(AccessError) as error:
        rsoup.verify(soup)
    assert error.value.code == "E0730"
    with pytest.raises(AccessError) as error:
        rsoup.verify(tmp_path / "nowhere")
    assert error.value.code == "E0701"


def _added(soup: Path) -> None:
    (soup / "more.txt").write_text("x")


def _hidden(soup: Path) -> None:
    (soup / ".hidden").write_text("x")


def _added_below(soup: Path) -> None:
    (soup / "runs").mkdir()
    (soup / "runs" / "code.py").write_text("x")


def _linked_folder(soup: Path) -> None:
    (soup / "more").symlink_to(soup.parent)


def _added_weights(soup: Path) -> None:
    write_file(soup / "other.safetensors", {"w": torch.zeros(3)})


def _removed(soup: Path) -> None:
    (soup / "notes" / "readme.txt").unlink()


def _removed_shard(soup: Path) -> None:
    next(soup.glob("*.safetensors")).unlink()


def _renamed(soup: Path) -> None:
    (soup / "config.json").rename(soup / "configuration.json")


def _other_case(soup: Path) -> None:
    (soup / "config.json").rename(soup / "Config.json")


def _link(soup: Path) -> None:
    shutil.move(soup / "config.json", soup.parent / "config.json")
    (soup / "config.json").symlink_to(soup.parent / "config.json")


def _link_to_weights(soup: Path) -> None:
    shard = next(soup.glob("*.safetensors"))
    shutil.move(shard, soup.parent / "elsewhere.safetensors")
    shard.symlink_to(soup.parent / "elsewhere.safetensors")


def _pipe(soup: Path) -> None:
    (soup / "config.json").unlink()
    os.mkfifo(soup / "config.json")


def _folder(soup: Path) -> None:
    (soup / "config.json").unlink()
    (soup / "config.json").mkdir()


def _cut(soup: Path) -> None:
    os.truncate(soup / "tokenizer_config.json", 3)


@pytest.mark.parametrize(
    "change",
    [_added, _hidden, _added_below, _linked_folder, _added_weights, _removed, _removed_shard, _renamed, _other_case, _link,
     _link_to_weights, _pipe, _folder, _cut],
)  # fmt: skip
def test_the_files_are_those_of_the_manifest(soup: Path, change: Callable[[Path], None]) -> None:
    """A file more, less, renamed, in another case, of another size, or a link or a pipe instead of it: 9, at level 0."""
    change(soup)

    result = found(soup, digests=False)

    assert [level.holds for level in result.levels] == [False]
    assert ended(soup) == 9


def test_two_shards_in_each_others_place(tmp_path: Path) -> None:
    """Shards of equal size under each other's names are found."""
    family = related(1, dtype=torch.float32)
    tensors = {"a": family.base["embed.weight"], "b": family.base["embed.weight"] + 1}
    write_folder(tmp_path / "one", tensors, shards=2)
    rsoup.merge(rsoup.make_recipe([tmp_path / "one"]), tmp_path / "soup")
    first, second = sorted((tmp_path / "soup").glob("*.safetensors"))
    assert first.stat().st_size == second.stat().st_size

    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)

    assert ended(tmp_path / "soup", digests=False) in (8, 9)


def test_what_a_download_leaves_is_no_difference(soup: Path) -> None:
    """.gitattributes, .git and .cache, which git and the Hub's client leave in the folder, are overlooked."""
    (soup / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    for name in (".git", ".cache/huggingface"):
        (soup / name).mkdir(parents=True)
        (soup / name / "HEAD").write_text("x")

    assert ended(soup) == 0


def test_a_soup_in_a_hub_cache(soup: Path, tmp_path: Path) -> None:
    """The links of a Hub cache, snapshots/REV/name → blobs/hash, are as good as files."""
    snapshot, blobs = (tmp_path / "models--a--b" / name for name in ("snapshots/1", "blobs"))
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(path for path in sorted(soup.rglob("*")) if path.is_file()):
        shutil.copy(file, blobs / str(number))
        link = snapshot / file.relative_to(soup)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(blobs / str(number))

    assert ended(snapshot) == 0
    flip(blobs / "1", 0)
    assert ended(snapshot) in (8, 9)


def test_weights_with_a_sha256(soup: Path) -> None:
    """A weight file listed with its SHA-256 instead of its digest is held against that."""
    import hashlib

    file = next(soup.glob("*.safetensors"))

    def change(value: dict[str, Any]) -> None:
        entry = next(row for row in value["subject"] if row["name"] == file.name)
        del entry["digest"]
        entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()

    edit(soup, change)
    assert ended(soup) == 0
    flip(file, file.stat().st_size - 1)
    assert f"{file.name}: its SHA-256" in whats(found(soup))


def test_a_single_file(tmp_path: Path, base_and_two: Folders) -> None:
    """NAME.safetensors is held against NAME.rsoup.json; under another name it is not what that says."""
    recipe = rsoup.make_recipe({"one": base_and_two.one, "two": base_and_two.two}, uniform=True)
    rsoup.merge(recipe, tmp_path / "soup.safetensors")

    assert ended(tmp_path / "soup.safetensors", base_and_two.one, base_and_two.two, rederive=True) == 0
    for name in ("safetensors", "rsoup.json"):
        shutil.copy(tmp_path / f"soup.{name}", tmp_path / f"other.{name}")
    assert ended(tmp_path / "other.safetensors") == 9
    flip(tmp_path / "soup.safetensors", 5000)
    assert ended(tmp_path / "soup.safetensors") == 9


# --- levels 2 and 3 ----------------------------------------------------------------------------------------------


def _family(folder: Path, dtype: torch.dtype = torch.bfloat16, shards: int = 1) -> dict[str, Path]:
    family = related(3, dtype=dtype)
    found = {"base": write_folder(folder / "base", family.base, shards=shards)}
    for name, tensors in zip(("one", "two", "three"), family.tuned, strict=True):
        found[name] = write_folder(folder / name, tensors, shards=shards)
    return found


SOUPS: dict[str, dict[str, Any]] = {
    "linear": {"mix": ["0.3", "0.7"]},
    "sharded": {"mix": ["0.3", "0.7"], "max_shard_size": "50kB"},
    "with a base": {"mix": ["1/3", "2/3"], "base": True},
    "one-hot": {"mix": ["1", "0"], "base": True},
    "affine": {"mix": ["1.5", "-0.25"], "base": True, "affine": True},
    "scale": {"mix": ["0.5", "0.5"], "base": True, "scale": "1.5"},
    "task arithmetic": {"mix": ["0.5", "0.5"], "base": True, "method": "task_arithmetic"},
    "slerp": {"mix": ["0.25", "0.75"], "base": True, "method": "slerp"},
    "slerp, one angle": {"mix": ["0.25", "0.75"], "base": True, "method": "slerp", "level": "global"},
    "float32": {"mix": ["0.3", "0.7"], "dtype": "float32"},
    "float64": {"mix": ["0.3", "0.7"], "dtype": "float64", "base": True},
    "drop": {"mix": ["0.3", "0.7"], "drop": ["scale", "layers.*"]},
    "normalize": {"mix": ["3", "7"], "normalize": True},
    "files from the second": {"mix": ["0.3", "0.7"], "files_from": "two", "buffers_from": "two"},
}


@pytest.mark.parametrize("name", SOUPS)
def test_every_kind_of_soup_is_derived_again(tmp_path: Path, name: str) -> None:
    """Whatever the method, λ, dtype, shards: the manifest's recipe and the ingredients give every bit again."""
    options = dict(SOUPS[name])
    made = _family(tmp_path, torch.float16 if name == "float32" else torch.bfloat16)
    base = made["base"] if options.pop("base", False) else None
    recipe = rsoup.make_recipe({"one": made["one"], "two": made["two"]}, base=base, **options)
    rsoup.merge(recipe, tmp_path / "soup")

    result = rsoup.verify(
        tmp_path / "soup", [made["one"], made["two"]], base=base, rederive=True, sample=3, threads=2
    )

    assert [level.number for level in result.levels] == [0, 1, 2, 3]
    file = next((tmp_path / "soup").glob("*.safetensors"))
    flip(file, file.stat().st_size - 3)
    failed = found(tmp_path / "soup", [made["one"], made["two"]], base=base, rederive=True, digests=False)
    assert failed.levels[1].differences[0].where.startswith("tensor '")


def test_groups_and_layers_are_derived_again(tmp_path: Path) -> None:
    """A group of seeds and λ per layer, from a recipe file; names, order and the file itself give the ingredients."""
    made = _family(tmp_path)
    text = """
base: base
ingredients:
  - {name: bleu, checkpoints: [one, two], lambda: 0.25}
  - {name: rouge, checkpoint: three, lambda: 0.75}
per_tensor:
  - {layers: 0-0, lambda: [0.5, 0.5]}
  - {match: 'embed.*', lambda: [1, 0]}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    rsoup.merge(rsoup.load_recipe(tmp_path / "recipe.yaml"), tmp_path / "soup")
    one, two, three, base = (str(made[name]) for name in ("one", "two", "three", "base"))

    for ingredients in (
        [one, two, three],
        [f"rouge={three}", f"bleu={one},{two}"],
        [f"rouge={three}", one, two],
        [f"bleu/2={two}", one, three],
        {"bleu": [one, two], "rouge": three},
    ):
        assert rsoup.verify(tmp_path / "soup", ingredients, base=base, rederive=True, digests=False).holds
    assert rsoup.verify(tmp_path / "soup", [tmp_path / "recipe.yaml"], rederive=True, digests=False).holds
    with pytest.raises(IncompatibleError) as error:
        rsoup.verify(tmp_path / "soup", [two, one, three], base=base, rederive=True)
    assert [problem.where for problem in error.value.details] == ["'bleu/1'", "'bleu/2'"]
    assert "calls 'bleu/2'" in error.value.details[0].what, error.value.details


def test_level_3_finds_a_recipe_that_lies(soup: Path, tmp_path: Path) -> None:
    """λ changed in the 17th digit, with its hash put right in the manifest: the weights' headers tell."""

    def change(value: dict[str, Any]) -> None:
        form = value["recipe"]["canonical"]
        form["ingredients"][0]["lambda"] = "0.30000000000000001"
        form["ingredients"][1]["lambda"] = "0.69999999999999999"
        value["recipe"]["sha256"] = canonical_sha256(form)

    edit(soup, change)

    result = found(soup, [tmp_path / "one", tmp_path / "two"], rederive=True, digests=False)
    assert "its header is not the one the recipe gives" in whats(result)


def _forged(soup: Path, change: Callable[[Tensors], object]) -> None:
    """Alter the weights, and put every digest right as whoever has rsoup can do."""
    from faults import weights_digest

    from rsoup.contents import content, tensor_digests

    for file in soup.glob("*.safetensors"):
        data = file.read_bytes()
        head = 8 + int.from_bytes(data[:8], "little")
        tensors = read_tensors(file)
        order = sorted(json.loads(data[8:head]).items(), key=lambda item: item[1].get("data_offsets", [0]))
        change(tensors)
        file.write_bytes(
            data[:head]
            + b"".join(
                tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                for name, _ in order
                if name in tensors
            )
        )
    with_digests = rsoup.open_checkpoint(str(soup))
    digests = tensor_digests(with_digests)

    def put_right(value: dict[str, Any]) -> None:
        value["tensors"], value["content"] = digests, content(with_digests.header, digests)
        for row in value["subject"]:
            if "digest" in row:
                row["digest"] = weights_digest((soup / row["name"]).read_bytes())

    edit(soup, put_right)
    with_digests.close()


def test_only_the_ingredients_find_a_careful_forger(soup: Path, tmp_path: Path) -> None:
    """Weights altered and every digest put right: level 1 holds, as it says it may; level 3 names the element."""

    def change(tensors: Tensors) -> None:
        if "layers.0.weight" in tensors:
            flat = tensors["layers.0.weight"].view(torch.int16).reshape(-1)
            flat[777] += 2

    _forged(soup, change)
    assert ended(soup) == 0

    result = found(soup, [tmp_path / "one", tmp_path / "two"], rederive=True)

    (difference,) = [d for d in result.levels[2].differences if d.data]
    assert difference.where == "tensor 'layers.0.weight'"
    assert difference.data["element"] == 777
    assert difference.data["ulps"] == 2
    assert difference.data["differing"] == 1


def test_a_sample_finds_a_widely_altered_soup(soup: Path, tmp_path: Path) -> None:
    """A soup of which every element moved is found by any sample, and the nonce repeats it to the letter."""
    _forged(soup, lambda tensors: [t.add_(0.5) for t in tensors.values() if t.is_floating_point()])
    given = [tmp_path / "one", tmp_path / "two"]

    once, again = (found(soup, given, sample="2%", nonce=NONCE) for _ in range(2))

    assert once.levels == again.levels
    assert not once.levels[2].holds
    assert once.levels[2].data["nonce"] == NONCE


def test_a_fresh_nonce_is_told(soup: Path, tmp_path: Path) -> None:
    """Without --nonce each run draws its own, and says which, and what the figure means."""
    given = [tmp_path / "one", tmp_path / "two"]
    levels = [rsoup.verify(soup, given, sample=2, digests=False).levels[1] for _ in range(2)]

    assert levels[0].data["nonce"] != levels[1].data["nonce"]
    for level in levels:
        assert str(level.data["nonce"]) in level.more[1]
        assert "a single altered block can hide" in level.more[1]
        assert "1 − (1 − f)^2: 2.0% for f = 1 %" in level.more[0]


def test_another_ingredient_is_named(soup: Path, tmp_path: Path) -> None:
    """A checkpoint that is not the one of the manifest is told apart from a soup that lies: exit 3, with its name."""
    other = write_folder(tmp_path / "other", related(1, seed=9).tuned[0], shards=2, side_files=SIDE)

    for options in ({"rederive": True}, {"sample": "50%"}):
        with pytest.raises(IncompatibleError) as error:
            rsoup.verify(soup, [tmp_path / "one", other], **options)
        assert error.value.code == "E0331"
        assert [problem.where for problem in error.value.details] == ["'two'"]


@pytest.mark.fault("H17")
def test_an_ingredient_that_flipped_a_bit_is_named(soup: Path, tmp_path: Path) -> None:
    """One bit of one ingredient changed since the merge, even where rounding hides it: exit 3, with its name."""
    file = next((tmp_path / "one").glob("*.safetensors"))
    flip(file, file.stat().st_size - 2)

    with pytest.raises(IncompatibleError) as error:
        rsoup.verify(soup, [tmp_path / "one", tmp_path / "two"], rederive=True)

    assert [problem.where for problem in error.value.details] == ["'one'"]


def test_checkpoints_that_do_not_fit(soup: Path, tmp_path: Path, base_and_two: Folders) -> None:
    """Another shape is E0301; a recipe whose rule or --drop matches nothing there is E0330: both exit 3."""
    other = copy.copy(base_and_two.family.tuned[0])
    other["scale"] = torch.zeros(3, dtype=torch.bfloat16)
    write_folder(tmp_path / "other", other)
    assert ended(soup, tmp_path / "one", tmp_path / "other", rederive=True) == 3
    rsoup.merge(
        rsoup.make_recipe({"one": base_and_two.one, "two": base_and_two.two}, uniform=True, drop=["scale"]),
        tmp_path / "dropped",
    )
    for folder in (base_and_two.one, base_and_two.two):
        tensors = read_tensors(folder)
        del tensors["scale"]
        shutil.rmtree(folder)
        write_folder(folder, tensors, side_files=SIDE)

    with pytest.raises(IncompatibleError) as error:
        rsoup.verify(tmp_path / "dropped", [base_and_two.one, base_and_two.two], rederive=True, digests=False)

    assert error.value.code == "E0330"


def test_a_copied_file_is_compared_with_its_ingredient(soup: Path, tmp_path: Path) -> None:
    """A file beside the weights that is not the ingredient's is found at level 3, the card alone may be edited."""
    import hashlib

    for name in ("tokenizer_config.json", "README.md"):
        (soup / name).write_text("changed")

        def change(value: dict[str, Any], name: str = name) -> None:
            entry = next(row for row in value["subject"] if row["name"] == name)
            entry.update(size=7, sha256=hashlib.sha256(b"changed").hexdigest())

        edit(soup, change)

    result = found(soup, [tmp_path / "one", tmp_path / "two"], rederive=True)
    assert [level.holds for level in result.levels] == [True, True, False]
    assert [d.where for d in result.levels[2].differences] == ["tokenizer_config.json"]


def test_measures_are_measured_again(tmp_path: Path) -> None:
    """A distance, a rounding error or a count that the manifest makes up is found at level 3."""
    made = _family(tmp_path)
    recipe = rsoup.make_recipe([made["one"], made["two"]], uniform=True, base=made["base"])
    rsoup.merge(recipe, tmp_path / "soup")
    edit(tmp_path / "soup", lambda v: v["checks"].update(update_error=0.0))
    assert ended(tmp_path / "soup") == 0

    result = found(tmp_path / "soup", [made["one"], made["two"]], base=made["base"], rederive=True)

    assert whats(result) == "rsoup.json: checks.update_error: mixing again gives another value"


@pytest.mark.parametrize(
    ("ingredients", "options", "code"),
    [
        ((), {"rederive": True}, "E0230"),
        ((), {"sample": "2%"}, "E0230"),
        (("one", "two"), {}, "E0230"),
        (("one",), {"rederive": True}, "E0230"),
        (("one", "two", "three"), {"rederive": True}, "E0230"),
        (("one", "two"), {"rederive": True, "base": "base"}, "E0230"),
        ({"one": "one", "three": "two"}, {"rederive": True}, "E0230"),
        ({"one": ["one", "two"], "two": "two"}, {"rederive": True}, "E0230"),
        (("one", "two"), {"sample": "0"}, "E0231"),
        (("one", "two"), {"sample": "101%"}, "E0231"),
        (("one", "two"), {"sample": "2.5"}, "E0231"),
        (("one", "two"), {"sample": "many"}, "E0231"),
        (("one", "two"), {"sample": "2%", "nonce": "abc"}, "E0231"),
        (("one", "two"), {"rederive": True, "nonce": NONCE}, "E0231"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    soup: Path, ingredients: Any, options: dict[str, Any], code: str
) -> None:
    """Ingredients without a question or the other way round, too many, too few, unknown, no sample: exit 2."""
    with pytest.raises(UsageError) as error:
        rsoup.verify(soup, ingredients, **options)

    assert error.value.code == code


def test_a_base_must_be_given_where_there_is_one(tmp_path: Path) -> None:
    """A recipe with a base asks for it by the name the manifest has of it."""
    made = _family(tmp_path)
    rsoup.merge(rsoup.make_recipe([made["one"]], base=made["base"], scale="0.5"), tmp_path / "soup")

    with pytest.raises(UsageError) as error:
        rsoup.verify(tmp_path / "soup", [made["one"]], rederive=True)

    assert error.value.code == "E0230"
    assert "'base'" in error.value.message


# --- the draw, pure ----------------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(0, 400_000), min_size=1, max_size=8),
    wanted=st.one_of(st.integers(1, 60), st.fractions(Fraction(1, 100), 1)),
    nonce=st.binary(min_size=8, max_size=16),
)
def test_a_draw_is_what_it_says(sizes: list[int], wanted: int | Fraction, nonce: bytes) -> None:
    """As many blocks as asked, none twice, one at least of each mixed tensor, the same for the same nonce."""
    header = {str(i): TensorSpec(DTYPES["BF16"], (size,)) for i, size in enumerate(sizes)}
    mixed = [name for name, spec in header.items() if spec.numel][::2]

    sample = draw(header, mixed, wanted, "ab" * 32, nonce)

    assert sample == draw(header, mixed, wanted, "ab" * 32, nonce)
    assert sample.total == sum(map(block_count, header.values()))
    assert sample.drawn == min(
        sample.total, wanted if isinstance(wanted, int) else -(-sample.total * wanted // 1)
    )
    assert sample.drawn <= sample.count <= sample.drawn + len(mixed)
    assert {*mixed} <= sample.blocks.keys()
    for name, blocks in sample.blocks.items():
        assert len({*blocks}) == len(blocks)
        assert all(0 <= block < block_count(header[name]) for block in blocks)


def test_a_draw_depends_on_the_nonce_and_the_soup() -> None:
    """Another nonce, or another content digest, is another draw; every block has its chance."""
    header = {"w": TensorSpec(DTYPES["F32"], (BLOCK_BYTES // 4 * 100,))}
    seen = [
        draw(header, [], 10, root, bytes([n] * 8)).blocks["w"] for root in ("00", "11") for n in range(40)
    ]

    assert len({*seen}) == 80
    assert {block for blocks in seen for block in blocks} == {*range(100)}


def test_the_odds_are_those_of_the_page() -> None:
    """300 blocks find 1 % of altered blocks with 95 %; a share of the whole is exact."""
    header = {"w": TensorSpec(DTYPES["U8"], (BLOCK_BYTES * 1000,))}
    sample = draw(header, [], 300, "00", b"12345678")

    assert sample.found_with(0.01) == pytest.approx(1 - 0.99**300)
    assert round(sample.found_with(0.01), 2) == 0.95
    assert parse_sample("2%") == Fraction(1, 50)
    assert parse_sample("0.5%") == Fraction(1, 200)
    assert parse_sample("300") == 300


# --- canonical form → recipe -------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(0, 20).map(str),
    st.fractions(0, 3, max_denominator=97).map(str),
    st.decimals(0, 3, places=17, allow_nan=False).map(lambda value: f"{value:f}"),
)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in ("base", ".", "..")
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes of every form that `make` lets through."""
    count = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=count, max_size=count, unique=True))
    groups = [draw(st.lists(NAMES, min_size=1, max_size=3)) for _ in names]
    method = draw(st.sampled_from(["linear", "task_arithmetic", *(["slerp"] if count == 2 else [])]))
    base = draw(st.one_of(st.none() if method == "linear" else NAMES, NAMES))
    exact = method == "slerp" or base is None or draw(st.booleans())

    def mix() -> list[Fraction]:
        values = [Fraction(draw(NUMBERS)) for _ in names]
        if not exact:
            return [value * draw(st.sampled_from([1, -1])) for value in values]
        total = sum(values)
        return [value / total for value in values] if total else [Fraction(1), *[Fraction(0)] * (count - 1)]

    rules = [
        RuleRequest(mix(), **draw(st.sampled_from([{"match": "a*"}, {"layers": "0-3"}, {"layers": "7"}])))
        for _ in range(draw(st.integers(0, 2)))
    ]
    return make(
        Request(
            [Ingredient(name, tuple(paths)) for name, paths in zip(names, groups, strict=True)],
            mix(), affine=not exact, base=base, method=method, level=draw(st.sampled_from(["tensor", "global"])),
            scale="1" if base is None else draw(NUMBERS), variant=draw(st.none() | NAMES),
            dtype=draw(st.sampled_from([None, "bfloat16", "float64"])), max_shard_size=draw(st.sampled_from([None, "5GB", "1"])),
            buffers_from=draw(st.sampled_from([None, names[0]])), key=draw(st.none() | NAMES), vocab=draw(st.sampled_from([None, "pad"])), drop=draw(st.lists(NAMES, max_size=2)), per_tensor=rules,
        )
    )  # fmt: skip


@given(recipes())
def test_a_canonical_form_gives_its_recipe_back(recipe: Recipe) -> None:
    """recipe_of(canonical(r)) has the canonical form, hash, mixes and rules of r, through JSON and back."""
    form = json.loads(json.dumps(recipe.canonical()))

    again = recipe_of(form, "rsoup.json")

    assert again.canonical() == recipe.canonical()
    assert again.sha256() == recipe.sha256() == canonical_sha256(form)
    assert (again.mix, again.scale, again.method) == (recipe.mix, recipe.scale, recipe.method)
    assert [(rule.mix, rule.match, rule.layers) for rule in again.per_tensor] == [
        (rule.mix, rule.match, rule.layers) for rule in recipe.per_tensor
    ]
    assert [name for name, _ in again.checkpoints()] == [name for name, _ in recipe.checkpoints()]


@given(recipes(), st.data())
def test_no_other_form_passes_for_one(recipe: Recipe, data: st.DataObject) -> None:
    """A key more, less, or of another type, is E0830: nothing is guessed into a recipe."""
    form = json.loads(json.dumps(recipe.canonical()))
    may_lack = {"base", "dtype", "variant", "max_shard_bytes", "buffers_from", *CANONICAL_OPTIONS}
    key = data.draw(st.sampled_from(sorted(form.keys() - may_lack)))
    change = data.draw(st.sampled_from(["drop", "add", "none", "list", "number", "row"]))
    if change == "drop":
        del form[key]
    elif change == "add":
        form["method_2"] = "x"
    elif change == "row":
        form["ingredients"][0][data.draw(st.sampled_from(["more", "name", "lambda", "checkpoints"]))] = 0.25
    else:
        form[key] = {"none": None, "list": [[]], "number": 1.5}[change]
    if form == recipe.canonical():
        return

    with pytest.raises(RefusedFileError) as error:
        recipe_of(form, "rsoup.json")

    assert error.value.code == "E0830"


def test_a_rule_knows_one_way_to_match() -> None:
    """Layers and a glob together, or neither, are no rule."""
    recipe = Recipe(
        (Ingredient("a", ("a",)),), (Fraction(1),), (Fraction(1),), per_tensor=(Rule((Fraction(1),), "*"),)
    )
    form = json.loads(json.dumps(recipe.canonical()))
    form["per_tensor"][0]["layers"] = [0, 1]

    with pytest.raises(RefusedFileError):
        recipe_of(form, "rsoup.json")


def test_places_are_paths_in_order(tmp_path: Path) -> None:
    """A text NAME=PATH that exists as a whole is a path; a name that nothing knows is one, too."""
    recipe = rsoup.make_recipe({"a": "x", "b": ["y", "z"]}, uniform=True)
    odd = tmp_path / "a=1"
    odd.mkdir()

    assert places(recipe, [str(odd), "c=2", "3"], None) == [("a", str(odd)), ("b/1", "c=2"), ("b/2", "3")]
    assert places(recipe, ["b=1,2", "3"], None) == [("a", "3"), ("b/1", "1"), ("b/2", "2")]


# --- load --------------------------------------------------------------------------------------------------------


def test_load_without_transformers_models(soup: Path) -> None:
    """safetensors reads the same tensors; an architecture that transformers does not know is said, not failed."""
    level = rsoup.verify(soup, load=True, digests=False).levels[1]

    assert level.name == "load"
    assert "safetensors" in level.proves
    assert "'TinyModel'" in level.proves


def test_load_with_transformers(tmp_path: Path) -> None:
    """A llama's soup is loaded by its class with every key in its place; a tensor too few is a mismatch."""
    pytest.importorskip("transformers")
    from zoo import born, nudged

    for seed in (1, 2):
        nudged(born("llama"), seed, torch.bfloat16).save_pretrained(tmp_path / str(seed))
    recipe = rsoup.make_recipe([tmp_path / "1", tmp_path / "2"], uniform=True)
    rsoup.merge(recipe, tmp_path / "soup")
    dropped = rsoup.make_recipe([tmp_path / "1", tmp_path / "2"], uniform=True, drop=["model.norm.weight"])
    rsoup.merge(dropped, tmp_path / "broken")

    level = rsoup.verify(tmp_path / "soup", load=True, digests=False).levels[1]
    assert "loads it as LlamaForCausalLM" in level.proves
    result = found(tmp_path / "broken", load=True)
    assert [level.holds for level in result.levels] == [True, True, False]
    assert "'model.norm.weight'" in whats(result)


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_says_what_holds(warm: Warm, soup: Path, tmp_path: Path) -> None:
    """A line for each level that was asked, with what it proves, and at the end what none proves; exit 0."""
    run = warm.run("verify", "soup", "one", "two", "--rederive", "--sample", "2%", cwd=tmp_path)

    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert [line.split()[:2] for line in lines[1:-1] if "✓" in line] == [
        ["✓", name] for name in ("structure", "digests", "sample", "rederive")
    ]
    assert lines[-1].startswith("None of this proves that the model is good")
    assert warm.run("verify", "-q", "soup", cwd=tmp_path).out == "soup\n"


def test_the_command_says_what_does_not_hold(warm: Warm, soup: Path, tmp_path: Path) -> None:
    """Exit 9, ✗ and the first differences; --json has all of them with element, values and ulps; -q the levels."""
    file = next(soup.glob("*.safetensors"))
    flip(file, file.stat().st_size - 2)

    run = warm.run("verify", "soup", "one", "two", "--rederive", cwd=tmp_path)
    document = json.loads(warm.run("verify", "--json", "soup", "one", "two", "--rederive", cwd=tmp_path).out)

    assert (run.code, run.err) == (9, "")
    assert [line.split()[0] for line in run.out.splitlines() if line.lstrip()[0] in "✓✗"] == ["✓", "✗", "✗"]
    assert (document["schema"], document["format"], document["holds"]) == (1, "rsoup-verify/1", False)
    levels = {level["name"]: level for level in document["levels"]}
    assert [levels[name]["holds"] for name in ("structure", "digests", "rederive")] == [True, False, False]
    assert levels["rederive"]["differences"][0].keys() >= {"tensor", "element", "soup", "recipe", "ulps"}
    assert warm.run("verify", "-q", "soup", cwd=tmp_path) == (9, "digests\n", "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["soup", "--structure"], 0),
        (["nowhere"], 7),
        (["one"], 7),
        (["soup", "--rederive"], 2),
        (["soup", "one", "base", "--rederive"], 3),
        (["soup", "one", "nowhere", "--rederive"], 7),
        (["soup", "one", "two", "--sample", "3", "--nonce", NONCE], 0),
    ],
)
def test_exit_codes(warm: Warm, soup: Path, tmp_path: Path, arguments: list[str], code: int) -> None:
    """0 holds, 2 a mistake, 3 other ingredients, 7 not there."""
    assert warm.run("verify", *arguments, cwd=tmp_path).code == code


def test_a_signal_stops_it(warm: Warm, tmp_path: Path) -> None:
    """Ctrl-C, at whatever moment, ends it with 130 and a word, or comes too late."""
    made = big_models(tmp_path, 60_000_000)
    rsoup.merge(rsoup.make_recipe(made, uniform=True), tmp_path / "soup")
    codes = set()
    for wait in range(4, 24):
        run = warm.start("verify", "soup", "one", "two", "--rederive", "--threads", "2", cwd=tmp_path)
        time.sleep(wait / 100)
        run.send(signal.SIGINT)
        ended = run.wait()
        codes.add(ended.code)
        assert "Traceback" not in ended.err
        assert ("stopped by SIGINT" in ended.err) == (ended.code == 130)

    assert codes in ({0, 130}, {130})


def test_nothing_is_written(soup: Path, tmp_path: Path) -> None:
    """Verifying leaves every file as it was, and none behind."""
    from checkpoints import tree

    before = tree(tmp_path)
    rsoup.verify(soup, [tmp_path / "one", tmp_path / "two"], rederive=True, sample=3)

    assert tree(tmp_path) == before


def test_a_folder_that_may_not_be_read(base_and_two: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """E0702, as of every command that reads: nothing here is about writing."""
    real, closed = os.listdir, str(base_and_two.one)

    def listdir(path: Any = ".") -> list[str]:
        if str(path) == closed:
            raise PermissionError(13, "Permission denied", closed)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(AccessError) as caught:
        rsoup.verify(closed)

    assert caught.value.code == "E0702"
