"""A published soup is made again by its own recipe, to the last bit, or it is said why not; and it is verified where it lies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from checkpoints import related, write_file, write_folder
from hub_server import Hub
from warm import Ended, Warm

import rsoup
from rsoup.cli.again import check_places
from rsoup.errors import UsageError

MEASURES = ["--base", "org/base", "--lambda", "0.3,0.7"]


class Kitchen(NamedTuple):
    """A Hub with a base, fine-tunes, adapters and soups of them, an interpreter that talks to it, a folder with the same."""

    hub: Hub
    folder: Path
    warm: Warm

    def run(self, *arguments: object, code: int = 0) -> Ended:
        """A command line in the folder, at this Hub; neither stream may name the Hub's cache."""
        done = self.warm.run(*map(str, arguments), cwd=self.folder)
        assert done.code == code, done.out + done.err
        assert str(self.hub.home) not in done.out + done.err
        return done

    def refused(self, name: str, *arguments: object, code: int) -> str:
        """The words of a refusal of this name and exit code; nothing was written to `out`, and it says what to do."""
        done = self.run(*arguments, "-o", "out", code=code)
        assert f"error[{name}]" in done.err
        assert "  hint   " in done.err
        assert not (self.folder / "out").exists()
        return done.err

    def same(self, one: str, other: str) -> None:
        """Everything but the card, and what the manifest says of it and of the run, is equal to the last byte."""
        a, b = ({p.name: p.read_bytes() for p in (self.folder / name).iterdir()} for name in (one, other))
        manifests = [json.loads(files.pop("rsoup.json")) for files in (a, b)]
        for found in manifests:
            found.pop("run")
            found["subject"] = [row for row in found["subject"] if row["name"] != "README.md"]
        a.pop("README.md")
        b.pop("README.md")
        assert a == b
        assert manifests[0] == manifests[1]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    """Soups of the Hub's own models (me/soup), of folders (me/local), of adapters (me/adapter), and what they are of."""
    folder = tmp_path_factory.mktemp("kitchen")
    family = related(2)
    for name, tensors in (("base", family.base), ("a", family.tuned[0]), ("b", family.tuned[1])):
        write_folder(folder / name, tensors)
    for number in range(2):
        write_adapter(folder / f"lora-{number}", number, family.base["layers.0.weight"].shape)
    with Hub(folder / "hub") as hub:
        for name in ("base", "a", "b", "lora-0", "lora-1"):
            hub.add(f"org/{name}", folder / name)
        warm = Warm(folder, env=hub.environment(), ready=["rsoup.publish.pushing", "huggingface_hub.hf_api"])
        found = Kitchen(hub, folder, warm)
        found.run("merge", "org/a", "org/b", *MEASURES, "-o", "soup", "--license", "mit")
        found.run("push", "soup", "me/soup")
        found.run("merge", "a", "b", "--base", "base", "--lambda", "0.3,0.7", "-o", "local")
        found.run("push", "local", "me/local", "--license", "mit")
        yield found
        found.warm.close()


def write_adapter(folder: Path, seed: int, shape: tuple[int, ...]) -> None:
    """A LoRA of rank 4 on one matrix of org/base, as PEFT writes it."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["layers.0"], "base_model_name_or_path": "org/base"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    sides = {"A": (4, shape[1]), "B": (shape[0], 4)}
    tensors = {f"base_model.model.layers.0.lora_{k}.weight": torch.randn(*s, generator=generator) for k, s in sides.items()}  # fmt: skip
    write_file(folder / "adapter_model.safetensors", tensors)


# Again


def test_a_published_soup_is_made_again_to_the_last_bit(kitchen: Kitchen) -> None:
    """The address of a soup alone gives its files, its tensors and its recipe, and says of which commit they are."""
    commit = kitchen.hub.commits("me/soup")[0].id
    done = kitchen.run("merge", "me/soup", "-o", "again")

    kitchen.same("soup", "again")
    assert f"the same bytes as me/soup@{commit[:12]}" in done.out
    assert "license: mit" in (kitchen.folder / "again" / "README.md").read_text()


@pytest.mark.parametrize(
    "form", ["hf://me/soup", "me/soup@{}", "https://huggingface.co/me/soup/tree/main", "soup"]
)
def test_every_way_to_name_a_soup_means_its_recipe(kitchen: Kitchen, form: str) -> None:
    """With a scheme, by its commit, as a browser shows it, or as a folder: a dry run tells its recipe, and writes nothing."""
    commit = kitchen.hub.commits("me/soup")[0].id
    done = kitchen.run("merge", form.format(commit), "-o", "dry", "--dry-run", "--json")
    found, manifest = json.loads(done.out), json.loads((kitchen.folder / "soup" / "rsoup.json").read_text())

    assert found["recipe"] == manifest["recipe"]
    assert found["again"]["compared"] == ["model.safetensors", "config.json"]
    assert not (kitchen.folder / "dry").exists()


def test_what_would_change_a_soup_is_refused(kitchen: Kitchen) -> None:
    """λ, a scale, a base, an allowance beside a soup alone: exit 2, with the way to its recipe as a file."""
    for flags in (
        ["--lambda", "1"],
        ["--scale", "0.5", "--base", "base"],
        ["--rank", "3"],
        ["--allow", "config"],
    ):
        said = kitchen.refused("E0731", "merge", "me/soup", *flags, code=2)
        assert "rsoup recipe me/soup > soup.yaml" in said
        assert flags[0] in said
    kitchen.run("merge", "it=soup", "--scale", "0.5", "--base", "base", "-o", "halfway", "--dry-run")


def test_the_recipe_as_a_file_makes_the_same_soup(kitchen: Kitchen) -> None:
    """`rsoup recipe` prints what `rsoup merge` takes: the same bytes, and the same with `--json`."""
    text = kitchen.run("recipe", "me/soup").out
    (kitchen.folder / "soup.yaml").write_text(text)
    kitchen.run("merge", "soup.yaml", "-o", "by-file")

    kitchen.same("soup", "by-file")
    assert json.loads(kitchen.run("recipe", "me/soup", "--json").out)["yaml"] == text.rstrip("\n") + "\n"


def test_ingredients_nobody_else_has_are_named(kitchen: Kitchen) -> None:
    """Checkpoints that lay in folders of whoever made it: exit 2, each by its name, and how to say where they are."""
    said = kitchen.refused("E0732", "merge", "me/local", "--from", "a=a", code=2)

    assert "--from b=PATH --from base=PATH" in said
    assert "'a'" not in said
    assert "checkpoint: b\n" in kitchen.run("recipe", "me/local").out


def test_ingredients_that_are_given_are_held_against_their_digests(kitchen: Kitchen) -> None:
    """--from NAME=PATH, wherever that is: the same bytes, recorded as they were; another checkpoint is exit 3, nothing is written."""
    shutil.copytree(kitchen.folder / "a", kitchen.folder / "elsewhere" / "copy of a")
    given = ["--from", "b=hf://org/b", "--from", "base=base"]
    kitchen.run("merge", "me/local", "--from", "a=elsewhere/copy of a", *given, "-o", "local-again")
    kitchen.same("local", "local-again")

    said = kitchen.refused("E0331", "merge", "me/local", "--from", "a=base", *given, code=3)
    assert "'a': it is what the manifest calls 'base'" in said


def test_places_of_nothing_are_refused(kitchen: Kitchen) -> None:
    """--from without a soup, without a name, twice, or with a name the recipe does not have: exit 2."""
    kitchen.refused("E0733", "merge", "a", "b", "--lambda", "0.5,0.5", "--from", "a=b", code=2)
    for places in (["a"], ["a="], ["=b"], ["a=b", "a=a"]):
        with pytest.raises(UsageError) as caught:
            check_places(places)
        assert caught.value.code == "E0733"
    kitchen.refused("E0230", "merge", "me/soup", "--from", "c=b", code=2)
    assert "error[E0733]" in kitchen.run("recipe", "a", code=2).err


def test_a_soup_that_is_not_what_its_recipe_gives_is_not_written(kitchen: Kitchen) -> None:
    """A published tensor and a file that differ from the recipe's: exit 9 with both, and no output."""
    forged = kitchen.folder / "forged"
    shutil.copytree(kitchen.folder / "soup", forged)
    found = json.loads((forged / "rsoup.json").read_text())
    found["tensors"]["scale"] = "0" * 64
    next(row for row in found["subject"] if row["name"] == "config.json")["sha256"] = "1" * 64
    (forged / "rsoup.json").write_text(json.dumps(found))
    kitchen.hub.add("me/forged", forged)
    said = kitchen.refused("E0735", "merge", "me/forged", code=9)

    assert "1 of 6 are others: 'scale'" in said
    assert "config.json: its bytes are others; it is copied from 'a'" in said
    assert not list(kitchen.folder.glob("out*"))


def test_adapters_are_made_again_too(kitchen: Kitchen) -> None:
    """Unpinned addresses of adapters count as adapters, need no base, and their soup is made again; at lower ranks, too."""
    asked = ["merge", "org/lora-0", "org/lora-1", "--lambda", "0.7,0.6", "--affine"]
    kitchen.run(*asked, "-o", "lora", "--license", "mit")
    kitchen.run("push", "lora", "me/lora")
    kitchen.run("merge", "me/lora", "-o", "lora-again")
    kitchen.same("lora", "lora-again")

    kitchen.run("resize", "org/lora-0", "--rank", "2", "-o", "small")
    assert "checkpoint: hf://org/lora-0@" in kitchen.run("recipe", "small").out
    kitchen.run("merge", "small", "-o", "small-again")
    kitchen.same("small", "small-again")


def test_adapters_on_their_base_are_made_again(kitchen: Kitchen) -> None:
    """CHECKPOINT+ADAPTER, both on the Hub: full weights, recorded by both commits, and made again."""
    kitchen.run(
        *[
            "merge",
            "org/base+org/lora-0",
            "org/base+org/lora-1",
            "--uniform",
            "-o",
            "on-base",
            "--license",
            "mit",
        ]
    )
    kitchen.run("merge", "on-base", "-o", "on-base-again")

    kitchen.same("on-base", "on-base-again")
    assert "hf://org/base@" in (said := kitchen.run("recipe", "on-base").out)
    assert "+hf://org/lora-1@" in said


def test_full_weights_from_the_hub_still_need_their_base(kitchen: Kitchen) -> None:
    """What turns out to be no adapter is refused as it is on a disk, before any weights come."""
    asked = ["merge", "org/a", "org/b", "--lambda", "0.7,0.6", "--affine"]
    kitchen.refused("E0207", *asked, code=2)


def test_an_extracted_adapter_is_refused(kitchen: Kitchen) -> None:
    """What a decomposition of full weights gave is not made again: exit 2, and how to extract it."""
    shutil.copytree(kitchen.folder / "soup", kitchen.folder / "extracted")
    found = json.loads((kitchen.folder / "soup" / "rsoup.json").read_text())
    text = json.dumps({**found, "arithmetic": "rsoup-extract/1"})
    (kitchen.folder / "extracted" / "rsoup.json").write_text(text)

    assert "rsoup extract" in kitchen.refused("E0734", "merge", "extracted", code=2)


def test_a_soup_on_a_disk_is_made_again_in_python(kitchen: Kitchen) -> None:
    """`rsoup.recook` of a folder and where its ingredients are: the same bytes; without them, E0732."""
    here = kitchen.folder
    places = {name: here / name for name in ("a", "b", "base")}
    made = rsoup.recook(here / "local", here / "recooked", places)

    kitchen.same("local", "recooked")
    assert made.out == str(here / "recooked")
    with pytest.raises(UsageError) as caught:
        rsoup.recook(here / "local", here / "never")
    assert caught.value.code == "E0732"


# Verified where it is


def test_a_soup_on_the_hub_is_verified_at_every_level(kitchen: Kitchen) -> None:
    """An address holds at every level, its ingredients by their commits; of blocks, only these are read from the Hub."""
    done = kitchen.run("verify", "me/soup", "--sample", "2", "--rederive")
    assert done.out.count("✓") == 4
    before = len(kitchen.hub.requests)
    kitchen.run("verify", "me/soup", "--structure")
    kitchen.run("verify", "me/local", "--sample", "1", "a", "b", "--base", "hf://org/base")
    assert not [r for r in kitchen.hub.requests[before:] if "org/a" in r.line or "org/b/" in r.line]

    assert "none are given" in kitchen.run("verify", "me/local", "--rederive", code=2).err


def test_a_stranger_in_the_repository_is_named(kitchen: Kitchen) -> None:
    """A file beside the soup that its manifest does not list fails the structure, as in a download; no weights come for that."""
    shutil.copytree(kitchen.folder / "soup", kitchen.folder / "visited")
    kitchen.hub.add("me/visited", kitchen.folder / "visited")
    kitchen.hub.add("me/visited", {"modeling_evil.py": b"import os", ".gitattributes": b""})
    before = len(kitchen.hub.requests)
    done = kitchen.run("verify", "me/visited", "--structure", code=9)

    assert sum(r.sent for r in kitchen.hub.requests[before:] if r.host == "storage") <= 1 << 14  # a header
    assert "modeling_evil.py: the manifest does not list it" in done.out
    assert done.out.count("the manifest does not list it") == 1


def test_a_download_of_the_real_command_is_verified_and_made_again(kitchen: Kitchen) -> None:
    """`hf download`, then verify and merge of that folder: it holds, and its recipe gives it."""
    target = kitchen.folder / "downloaded"
    line = [str(Path(sys.executable).parent / "hf"), "download", "me/soup", "--local-dir", str(target)]
    subprocess.run(line, env=kitchen.hub.environment(), check=True, capture_output=True, timeout=60)

    kitchen.run("verify", "downloaded")
    kitchen.run("merge", "downloaded", "-o", "from-download")
    kitchen.same("soup", "from-download")
