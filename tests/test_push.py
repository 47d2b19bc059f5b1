"""`rsoup push`: one commit of everything or nothing, nothing twice, nothing private, against a Hub of the tests' own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import make
from checkpoints import write_folder
from conftest import Folders
from hub_server import Hub
from huggingface_hub.repocard import ModelCard
from warm import rsoup as command_line

import rsoup
from rsoup.report import card


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a user `me` in the organisation `org`."""
    with Hub(tmp_path / "hub") as made:
        yield made


@pytest.fixture
def soup(base_and_two: Folders) -> Path:
    """A soup of the two fine-tunes against their base."""
    recipe = rsoup.make_recipe(
        {"helpful": base_and_two.one, "harmless": base_and_two.two},
        mix=["0.3", "0.7"],
        base=base_and_two.base,
    )
    rsoup.merge(recipe, base_and_two.root / "soup")
    return base_and_two.root / "soup"


def push(
    hub: Hub,
    *arguments: object,
    token: str | None = "hf_write",
    xet: bool = False,
    command: str = "push",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """`rsoup push …` in a process of its own, whose every output is searched for tokens."""
    done = command_line(command, *map(str, arguments), env=hub.environment(token=token, xet=xet) | variables)
    assert token is None or token not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], code: str, exit_code: int) -> str:
    """The words of a refusal, after its codes were looked at; it says what to do."""
    assert f"error[{code}]" in done.stderr, done.stderr
    assert done.returncode == exit_code
    assert "  hint   " in done.stderr
    return done.stderr


def published(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The answer of a push that went well, with --json."""
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def on_disk(folder: Path) -> dict[str, bytes]:
    """Name → bytes of a folder's files."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def writes(hub: Hub) -> list[str]:
    """The requests that change something on the Hub."""
    kinds = ("/repos/create", "/commit/", "/branch/", "/discussions", "/preupload", "/info/lfs", " storage ")
    return [r.line for r in hub.requests if r.method != "GET" and any(kind in r.line for kind in kinds)]


def with_sweep(folder: Path) -> Path:
    """The metrics.json of a sweep that measured three λ."""
    rows = [("1", "0", 0.9, 0.1), ("0.3", "0.7", 0.712, 0.806), ("0", "1", 0.2, 0.85)]
    points = [
        {"point": f"p{a}", "lambda": {"helpful": a, "harmless": b}, "status": "done", "report": None,
         "select": {"helpfulness": {"value": x, "error": 0.009, "n": 3}, "harmlessness": {"value": y, "error": None, "n": None}}}
        for a, b, x, y in rows
    ]  # fmt: skip
    metrics = {name: {"direction": "maximise", "guard": False} for name in ("helpfulness", "harmlessness")}
    found = {
        "schema": "rsoup-metrics/1", "ingredients": ["helpful", "harmless"], "metrics": metrics, "points": points
    }  # fmt: skip
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


WRITTEN = ("README.md", "rsoup.json")
"""The files that are published as they must be on the Hub, not as they lie on the disk."""


@pytest.mark.parametrize("xet", [False, True])
@pytest.mark.fault("K16")
def test_a_new_repository_gets_everything_in_one_commit(hub: Hub, soup: Path, xet: bool) -> None:
    """The repository is made, and one commit after its first holds the folder, byte for byte, by LFS and by Xet."""
    done = push(hub, soup, "me/soup", "--private", xet=xet)

    assert done.returncode == 0, done.stderr
    there, here = hub.files("me/soup"), on_disk(soup)
    assert set(there) - {".gitattributes"} == set(here)
    assert all(there[name] == here[name] for name in here if name not in WRITTEN)
    assert len(hub.commits("me/soup")) == 2
    assert hub.repository("me/soup").private
    assert hub.leaks == []


@pytest.mark.fault("K18")
def test_what_is_published_is_whole_true_and_anonymous(hub: Hub, soup: Path, tmp_path: Path) -> None:
    """The published files verify, show the measured rewards to the Hub's client, and name no place of this machine."""
    (soup.parent / "fetched").mkdir()
    done = push(hub, soup, "me/soup", "--results", with_sweep(tmp_path / "run"), "--json")
    assert published(done)["metadata"]["tags"] == ["merge", "rsoup", "rewarded-soup"]
    for name, data in hub.files("me/soup").items():
        assert str(tmp_path).encode() not in data
        (soup.parent / "fetched" / name).write_bytes(data)

    rsoup.verify(soup.parent / "fetched")
    results = ModelCard.load(soup.parent / "fetched" / "README.md").data.eval_results
    assert {(r.metric_type, r.metric_value) for r in results} == {
        ("helpfulness", 0.712),
        ("harmlessness", 0.806),
    }
    assert "](front." in (soup.parent / "fetched" / "README.md").read_text()


@pytest.mark.fault("K13")
def test_the_second_push_has_nothing_to_do(hub: Hub, soup: Path) -> None:
    """Pushing again sends nothing and commits nothing, and says so."""
    assert push(hub, soup, "me/soup").returncode == 0
    before = len(writes(hub))
    found = published(push(hub, soup, "me/soup", "--json"))

    assert len(writes(hub)) == before
    assert (found["added"], found["replaced"], found["deleted"], found["commit"]) == ({}, {}, [], None)
    assert any("nothing to do" in note for note in found["notes"])


def test_a_dry_run_writes_nothing(hub: Hub, soup: Path) -> None:
    """--dry-run tells repository, files, sizes and metadata, and changes nothing anywhere."""
    found = published(push(hub, soup, "me/soup", "--dry-run", "--json"))

    assert writes(hub) == []
    assert found["created"]
    assert found["dry_run"]
    assert found["added"]["model.safetensors"] == (soup / "model.safetensors").stat().st_size
    assert found["metadata"]["rsoup"]["lambda"] == {"helpful": "0.3", "harmless": "0.7"}


@pytest.mark.fault("K15")
def test_stale_shards_go_in_the_same_commit(hub: Hub, soup: Path) -> None:
    """Weights of another model are listed and refused; with --overwrite they go where the new ones come."""
    old = {
        "model-00001-of-00002.safetensors": b"1", "model-00002-of-00002.safetensors": b"2", "model.safetensors.index.json": b"{}",
        "README.md": b"---\nmine: 1\n---\nMy words.\n", "notes.txt": b"kept",
    }  # fmt: skip
    hub.add("me/soup", old)
    text = refused(push(hub, soup, "me/soup"), "E0723", 2)
    assert all(name in text for name in list(old)[:3])
    assert writes(hub) == []

    found = published(push(hub, soup, "me/soup", "--overwrite", "--json"))
    there = hub.files("me/soup")
    assert found["deleted"] == sorted(list(old)[:3])
    assert len(hub.commits("me/soup")) == 2
    assert not set(list(old)[:3]) & set(there)
    assert there["notes.txt"] == b"kept"
    assert there["README.md"].endswith(b"---\nMy words.\n")
    assert b"mine: 1" in there["README.md"]


def test_a_pull_request_leaves_the_branch_alone(hub: Hub, soup: Path) -> None:
    """--create-pr proposes everything in one pull request, once, and main stays as it was."""
    head = hub.add("org/soup", {"model.safetensors": b"old", "pytorch_model.bin": b"old"})
    found = published(push(hub, soup, "org/soup", "--create-pr", "--json"))
    again = published(push(hub, soup, "org/soup", "--create-pr", "--json"))

    (pull,) = hub.pull_requests("org/soup")
    assert (found["pull_request"], again["pull_request"]) == (pull.number, pull.number)
    assert hub.commits("org/soup")[0].id == head
    assert set(hub.files("org/soup", pull.ref)) == set(on_disk(soup))
    assert found["deleted"] == ["pytorch_model.bin"]


def test_a_branch_is_made_where_it_is_missing(hub: Hub, soup: Path) -> None:
    """--revision commits to that branch, of a repository that is new too; main has none of it."""
    assert (
        push(hub, soup, "me/soup", "--revision", "lambda-0.3", "--commit-message", "λ = 0.3").returncode == 0
    )

    assert set(on_disk(soup)) <= set(hub.files("me/soup", "lambda-0.3"))
    assert not set(on_disk(soup)) & set(hub.files("me/soup"))
    assert hub.commits("me/soup", "lambda-0.3")[0].title == "λ = 0.3"


@pytest.mark.fault("K2")
@pytest.mark.parametrize(
    ("token", "code"), [("hf_read", "E0725"), (None, "E0724"), ("hf_" + "x" * 30, "E0724")]
)
def test_a_token_that_may_not_write_is_refused_first(
    hub: Hub, soup: Path, token: str | None, code: str
) -> None:
    """Without a token, with a wrong one, with one that only reads: exit 7, and nothing is sent."""
    hub.add("me/soup", {"x": b"1"})
    refused(push(hub, soup, "me/soup", token=token), code, 7)

    assert writes(hub) == []


@pytest.mark.fault("K17")
def test_no_token_is_in_any_output(hub: Hub, soup: Path) -> None:
    """With tracebacks, with a token no header can hold, and in JSON: a canary in the token is seen nowhere."""
    for tail, arguments in (
        ("aaaaaaaaaaaaaaaa", ["--debug"]),
        ("bb\x07bbbbbbbbbbbb", ["--debug"]),
        ("cccccccccccccc", ["--json"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "rsoup", "push", str(soup), "me/soup", *arguments],
            env=hub.environment(token=f"hf_CANARY{tail}"), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 7, done.stderr
        assert "CANARY" not in done.stdout + done.stderr


@pytest.mark.fault("K14")
def test_somebody_elses_commit_is_not_overwritten(hub: Hub, soup: Path) -> None:
    """A commit between the look and the push: exit 75 with its title, their files as they made them; then it works."""
    hub.add("me/soup", {"notes.txt": b"1"})
    hub.when(
        "POST endpoint /api/models/me/soup/commit/",
        lambda: hub.add("me/soup", {"notes.txt": b"2"}, title="theirs"),
    )
    text = refused(push(hub, soup, "me/soup"), "E7511", 75)

    assert "theirs" in text
    assert hub.files("me/soup")["notes.txt"] == b"2"
    assert "model.safetensors" not in hub.files("me/soup")
    assert push(hub, soup, "me/soup").returncode == 0


@pytest.mark.fault("K13")
@pytest.mark.parametrize("where", ["lost", "lost-pr", "reset", "busy", "upload"])
def test_a_connection_may_break_anywhere(hub: Hub, soup: Path, where: str) -> None:
    """Broken before or after the commit took effect, or asked to wait: one commit or one pull request, and success."""
    hub.add("me/soup", {"x": b"1"})
    commit = "POST endpoint /api/models/me/soup/commit/"
    if where == "upload":
        hub.fail("PUT storage ", reset=True, cut_after=1000)
    elif where == "busy":
        hub.fail(commit, status=429, headers={"Retry-After": "0"})
    else:
        hub.fail(commit, lost=where != "reset", reset=where == "reset")
    done = push(hub, soup, "me/soup", *(["--create-pr"] if where == "lost-pr" else []))

    assert done.returncode == 0, done.stderr
    pulls = hub.pull_requests("me/soup")
    assert len(pulls) == (where == "lost-pr")
    assert len(hub.commits("me/soup", pulls[0].ref if pulls else "main")) == 2
    assert (
        hub.files("me/soup", pulls[0].ref if pulls else "main")["model.safetensors"]
        == (soup / "model.safetensors").read_bytes()
    )


@pytest.mark.fault("K18")
def test_nothing_private_is_published(hub: Hub, base_and_two: Folders) -> None:
    """A path of this machine in a text: exit 2 with file and line before the Hub is asked anything."""
    (base_and_two.one / "notes.md").write_text(f"one\ntrained in {base_and_two.base}\n")
    text = refused(push(hub, base_and_two.one, "me/one"), "E0722", 2)

    assert "notes.md:2" in text
    assert str(base_and_two.base) not in text
    assert hub.requests == []


def test_a_soup_that_was_changed_is_not_published(hub: Hub, soup: Path) -> None:
    """The digests are looked at first: one other byte in the weights, exit 9, and the Hub is not asked."""
    data = bytearray((soup / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (soup / "model.safetensors").write_bytes(data)
    refused(push(hub, soup, "me/soup"), "E0901", 9)

    assert hub.requests == []


def test_what_the_hub_refuses_is_said_in_its_words(hub: Hub, soup: Path) -> None:
    """A card the Hub does not take: exit 6 before anything is sent; so does a file that its .gitignore hides."""
    assert "license" in refused(push(hub, soup, "me/soup", "--license", "not-one"), "E0727", 6)
    assert writes(hub) == []
    rows = [{"path": name, "uploadMode": "lfs" if name.endswith(".safetensors") else "regular", "shouldIgnore": name.endswith(".safetensors")} for name in on_disk(soup)]  # fmt: skip
    hub.fail("/preupload/", status=200, body=json.dumps({"files": rows}).encode())
    assert "model.safetensors" in refused(push(hub, soup, "me/soup"), "E0727", 6)
    assert set(hub.files("me/soup")) == {".gitattributes"}


def test_offline_is_said(hub: Hub, soup: Path) -> None:
    """HF_HUB_OFFLINE: exit 7, with what to unset."""
    assert "HF_HUB_OFFLINE" in refused(push(hub, soup, "me/soup", HF_HUB_OFFLINE="1"), "E0726", 7)


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Hub, soup: Path) -> None:
    """--private into a repository that everyone reads is refused; a renamed one is found under its new name."""
    hub.add("me/old", {"x": b"1"})
    refused(push(hub, soup, "me/old", "--private"), "E0720", 2)
    hub.rename("me/old", "me/new")
    found = published(push(hub, soup, "me/old", "--json"))

    assert found["repo"] == "me/new"
    assert "model.safetensors" in hub.files("me/new")


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_merge_publishes_what_it_made(hub: Hub, base_and_two: Folders, tmp_path: Path, kind: str) -> None:
    """`merge --push`: the bytes on the Hub are the soup's, and the answer says where."""
    inputs: list[object] = [base_and_two.one, base_and_two.two]
    if kind == "adapter":
        made = make("plain", tmp_path / "adapters")
        inputs = list(made.adapters)
        for adapter in made.adapters:  # trained from a local folder; what is published names a repository
            config = json.loads((adapter / "adapter_config.json").read_text())
            (adapter / "adapter_config.json").write_text(
                json.dumps({**config, "base_model_name_or_path": "org/base"})
            )
    line = [
        *inputs,
        "--lambda",
        "0.3,0.7",
        "-o",
        tmp_path / "made",
        "--push",
        "me/made",
        "--private",
        "--json",
    ]
    found = published(push(hub, *line, command="merge"))

    assert found["push"]["repo"] == "me/made"
    weights = [name for name in hub.files("me/made") if name.endswith(".safetensors")]
    assert weights
    assert all(hub.files("me/made")[name] == (tmp_path / "made" / name).read_bytes() for name in weights)
    assert hub.repository("me/made").private


def test_a_merge_asks_before_it_works(hub: Hub, base_and_two: Folders, tmp_path: Path) -> None:
    """A token that may not write, or options without --push, are refused before anything is made."""
    line = [base_and_two.one, base_and_two.two, "--lambda", "0.3,0.7", "-o", tmp_path / "made"]
    refused(push(hub, *line, "--push", "me/made", command="merge", token="hf_read"), "E0725", 7)
    refused(push(hub, *line, "--private", command="merge"), "E0720", 2)
    assert not (tmp_path / "made").exists()


def test_a_soup_that_is_made_stays(hub: Hub, base_and_two: Folders, tmp_path: Path) -> None:
    """Where publishing fails after the merge, the soup is complete, and the command that publishes it is told."""
    hub.fail("POST endpoint /api/models/me/made/commit", status=403)
    line = [
        base_and_two.one,
        base_and_two.two,
        "--lambda",
        "0.3,0.7",
        "-o",
        tmp_path / "made",
        "--push",
        "me/made",
    ]
    done = push(hub, *line, command="merge")

    assert done.returncode != 0
    assert f"rsoup push {tmp_path / 'made'} me/made" in done.stderr
    assert (tmp_path / "made" / "rsoup.json").exists()


def test_licences_that_differ_are_refused_before_the_work(
    hub: Hub, base_and_two: Folders, tmp_path: Path
) -> None:
    """`merge --push` of ingredients under two licences: E0721 before anything is made; --license decides."""
    (base_and_two.one / "README.md").write_text("---\nlicense: mit\n---\n")
    (base_and_two.two / "README.md").write_text("---\nlicense: other\nlicense_name: mine\n---\n")
    line = [base_and_two.one, base_and_two.two, "--lambda", "0.3,0.7", "-o", tmp_path / "made"]
    said = refused(push(hub, *line, "--push", "me/made", command="merge"), "E0721", 2)

    assert "mit, other (mine)" in said
    assert not (tmp_path / "made").exists()


def test_a_base_that_cannot_be_asked_is_no_base_without_a_licence(hub: Hub, base_and_two: Folders) -> None:
    """The ingredients' cards name a base and no licence: the base's is taken; an answer that is no answer ends the push."""
    for folder in (base_and_two.base, base_and_two.one, base_and_two.two):
        (folder / "README.md").write_text("---\nbase_model: org/base\n---\n")
    soup = base_and_two.root / "soup"
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True, base=base_and_two.base)
    rsoup.merge(recipe, soup)
    hub.add("org/base", {"README.md": b"---\nlicense: mit\n---\n"})

    hub.fail("GET endpoint /api/models/org/base", status=400, times=9)
    done = push(hub, soup, "me/soup")
    assert done.returncode not in (0, 1)
    assert "  hint   " in done.stderr
    assert writes(hub) == []

    hub.faults.clear()
    published(push(hub, soup, "me/soup", "--json"))
    assert card.split(hub.files("me/soup")["README.md"].decode())[0]["license"] == "mit"

    hub.fail("GET endpoint /api/models/org/base", status=403)
    published(push(hub, soup, "me/other", "--json"))
    assert "license" not in card.split(hub.files("me/other")["README.md"].decode())[0]


@pytest.mark.parametrize("tool", ["transformers", "trl"])
def test_cards_of_other_tools_keep_their_words(hub: Hub, soup: Path, tool: str) -> None:
    """On top of a real card of transformers or TRL: every word of its prose stays, what was placeholder goes, the Hub takes it."""
    there = real_card(tool)
    hub.add(
        "me/soup",
        {"README.md": there.encode(), ".eval_results/gpqa.yaml": b"[]", "model.safetensors": b"old"},
    )
    found = published(push(hub, soup, "me/soup", "--overwrite", "--license", "mit", "--json"))
    data, prose = card.split(hub.files("me/soup")["README.md"].decode())

    assert prose == card.split(there)[1]
    assert data["license"] == "mit"
    assert "licence" not in data
    assert {"merge", "rsoup", "rewarded-soup"} <= set(data["tags"])
    assert any(".eval_results/" in note for note in found["notes"])
    assert any("results by others" in note for note in found["notes"]) == (tool == "transformers")


def real_card(tool: str) -> str:
    """The card that a library writes after a training."""
    if tool == "transformers":
        from transformers.modelcard import TrainingSummary

        asked = {
            "dataset": ["d"],
            "dataset_tags": ["d"],
            "dataset_args": ["x"],
            "tasks": ["text-classification"],
        }
        summary = TrainingSummary("old", license="mit", finetuned_from="org/other", eval_results={"Accuracy": 0.5}, **asked)  # fmt: skip
        return str(summary.to_model_card())
    from trl.trainer.utils import generate_model_card

    return str(generate_model_card("org/other", "old", "me/soup", "org/data", ["sft"], None, None, "SFT"))


def test_a_path_in_pefts_card_is_not_published(hub: Hub, tmp_path: Path) -> None:
    """The card PEFT writes beside an adapter of a local base: its base_model and its tag of that path are left out."""
    made = make("plain", tmp_path / "adapters")
    (adapter := made.adapters[0] / "adapter_config.json").write_text(
        json.dumps({**json.loads(adapter.read_text()), "base_model_name_or_path": "org/base"})
    )
    assert str(made.base) in (made.adapters[0] / "README.md").read_text()
    assert push(hub, made.adapters[0], "me/adapter").returncode == 0
    text = hub.files("me/adapter")["README.md"].decode()

    assert str(tmp_path) not in text
    assert {"lora", "transformers"} <= set(card.split(text)[0]["tags"])


def test_a_soup_that_is_one_file_is_published_with_its_manifest(
    hub: Hub, base_and_two: Folders, tmp_path: Path
) -> None:
    """A file and its NAME.rsoup.json, alone in a folder or named: published with a card, and proven where they are."""
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True)
    (tmp_path / "policy").mkdir()
    rsoup.merge(recipe, tmp_path / "policy" / "one.safetensors")
    first = published(push(hub, tmp_path / "policy", "me/policy", "--json"))
    again = published(push(hub, tmp_path / "policy" / "one.safetensors", "me/policy", "--json"))

    assert set(first["added"]) == {"one.safetensors", "one.rsoup.json", "README.md"}
    assert again["commit"] is None
    done = push(hub, "me/policy", command="verify")
    assert done.returncode == 0, done.stdout
    assert "✓ digests" in done.stdout


def test_what_is_not_of_the_soup_is_named(hub: Hub, soup: Path) -> None:
    """A file that stays in the repository and that the manifest does not list is said, for `rsoup verify` will say it."""
    hub.add("me/soup", {"notes.txt": b"mine"})

    assert any(
        "'notes.txt' is not of this soup" in n
        for n in published(push(hub, soup, "me/soup", "--json"))["notes"]
    )


@pytest.mark.fault("K14")
def test_a_commit_of_the_real_command_meanwhile_is_seen(hub: Hub, soup: Path) -> None:
    """`hf upload` between the look and the commit: exit 75 with its title, and its file stays; then the push goes through."""
    (soup.parent / "theirs.txt").write_text("theirs")
    hub.add("me/soup", {"x": b"1"})
    line = [Path(sys.executable).parent / "hf", "upload", "me/soup", soup.parent / "theirs.txt", "theirs.txt"]
    line = [*map(str, line), "--commit-message", "by hand"]
    hub.when(
        "POST endpoint /api/models/me/soup/commit/",
        lambda: subprocess.run(line, env=hub.environment(), check=True, capture_output=True, timeout=60),
    )
    text = refused(push(hub, soup, "me/soup"), "E7511", 75)

    assert "by hand" in text
    assert push(hub, soup, "me/soup").returncode == 0
    assert hub.files("me/soup")["theirs.txt"] == b"theirs"


@pytest.mark.parametrize("xet", [True, False])
def test_tensors_that_are_there_are_not_sent_again(hub: Hub, tmp_path: Path, xet: bool) -> None:
    """Of a soup whose other tensors the Hub has in another repository, Xet sends those that differ; LFS whole files."""
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i}.weight": torch.randn(256, 512, generator=generator) for i in range(12)}
    tuned = [{**base, "layers.3.weight": base["layers.3.weight"] + 0.01 * k} for k in (1, 2)]
    for name, tensors in (("base", base), ("a", tuned[0]), ("b", tuned[1])):
        write_folder(tmp_path / name, tensors)
    recipe = rsoup.make_recipe([tmp_path / "a", tmp_path / "b"], uniform=True, base=tmp_path / "base")
    rsoup.merge(recipe, tmp_path / "shared")
    whole, one = (tmp_path / "shared" / "model.safetensors").stat().st_size, base["layers.3.weight"].nbytes
    assert push(hub, tmp_path / "base", "me/base", xet=xet).returncode == 0
    before = stored(hub)
    assert push(hub, tmp_path / "shared", "me/shared", xet=xet).returncode == 0

    sent = stored(hub) - before
    if xet:
        assert one <= sent < 1.5 * one
    else:
        assert sent == whole


def stored(hub: Hub) -> int:
    """Bytes that came to the storage: in Xet's chunks, or in whole files."""
    chunks = [f.stat().st_size for f in (hub.xet.folder / "xet" / "xorbs").rglob("*") if f.is_file() and f.suffix not in (".redb", ".mdb")]  # fmt: skip
    files = [int(r.headers["content-length"]) for r in hub.requests if r.line.startswith("PUT storage ")]
    return sum(chunks) + sum(files)
