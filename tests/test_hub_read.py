"""Checkpoints read from the Hub by the real command, in processes of its own, at the tests' Hub."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from checkpoints import read_tensors, related, tree, write_folder
from hub_inside import inside
from hub_server import Hub
from huggingface_hub import constants
from warm import rsoup

from rsoup.errors import BusyError
from rsoup.storage.checkpoint import open_checkpoint

SIDE = {"tokenizer.json": "{}", "generation_config.json": '{"max_length": 20}'}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a base and two fine-tunes, one of them in shards; the same lies in folders beside it."""
    family = related(2)
    write_folder(tmp_path / "base", family.base)
    write_folder(tmp_path / "a", family.tuned[0], shards=2, side_files=SIDE)
    write_folder(tmp_path / "b", family.tuned[1])
    with Hub(tmp_path / "hub") as started:
        for name in ("base", "a", "b"):
            started.add(f"org/{name}", tmp_path / name)
        yield started


def run(
    hub: Hub, folder: Path, *arguments: str, code: int = 0, token: str | None = "hf_write", **variables: str
) -> str:
    """The command in `folder` at this Hub; both its streams. Neither may hold a token or the cache's place."""
    done = rsoup(*arguments, env=hub.environment(token=token) | variables, cwd=folder)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "hf_write" not in said
    assert str(hub.home) not in said
    return said


def merge(hub: Hub, folder: Path, *more: str, code: int = 0, **variables: str) -> str:
    """Two fine-tunes of the Hub, brought into its cache, merged into `soup`."""
    asked = ("merge", "org/a", "org/b", "--lambda", "0.6,0.4", "-o", "soup", "--cache", *more)
    return run(hub, folder, *asked, code=code, **variables)


def alike(one: Path, other: Path) -> bool:
    """Whether two soups hold the same tensors, bit for bit."""
    a, b = read_tensors(one), read_tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def manifest(soup: Path) -> dict[str, object]:
    """The soup's rsoup.json."""
    return dict(json.loads((soup / "rsoup.json").read_text()))


def test_a_merge_of_the_hub_is_the_merge_of_the_folders(hub: Hub, tmp_path: Path) -> None:
    """Same tensors, same files beside them; the manifest names commits and no path, and verify makes it again."""
    merge(hub, tmp_path, "--base", "org/base")
    run(hub, tmp_path, "merge", "a", "b", "--base", "base", "--lambda", "0.6,0.4", "-o", "here")

    assert alike(tmp_path / "soup", tmp_path / "here")
    ours, theirs = tree(tmp_path / "soup"), tree(tmp_path / "here")
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ("config.json", *SIDE))
    told = manifest(tmp_path / "soup")
    commits = [hub.commits(f"org/{name}")[0].id for name in ("a", "b", "base")]
    assert [row["checkpoint"] for row in told["ingredients"]] == [  # type: ignore[attr-defined]
        f"org/a@{commits[0]}",
        f"org/b@{commits[1]}",
    ]
    assert told["base"]["checkpoint"] == f"org/base@{commits[2]}"  # type: ignore[index]
    assert str(tmp_path) not in json.dumps(told)
    run(hub, tmp_path, "verify", "soup", "org/a", "org/b", "--base", "org/base", "--rederive")


@pytest.mark.fault("K19")
def test_a_second_merge_downloads_nothing_and_offline_needs_no_hub(hub: Hub, tmp_path: Path) -> None:
    """What is in the cache is used; with HF_HUB_OFFLINE no request is made at all."""
    merge(hub, tmp_path)
    before = len(hub.requests)
    merge(hub, tmp_path, "--overwrite")
    assert not [r for r in hub.requests[before:] if "/resolve/" in r.line or " storage " in r.line]

    before = len(hub.requests)
    merge(hub, tmp_path, "--overwrite", HF_HUB_OFFLINE="1")
    assert len(hub.requests) == before
    said = run(hub, tmp_path, "check", "org/base", "org/a", code=7, HF_HUB_OFFLINE="1")
    assert "E0716" in said
    assert "HF_HUB_OFFLINE" in said


def test_headers_alone_cost_kilobytes(tmp_path: Path) -> None:
    """check --headers of models of 50 MB reads less than 100 kB, in ranges, and leaves no weights behind."""
    tensors = {"layers.0.weight": torch.zeros(25_000_000 // 1000, 1000, dtype=torch.bfloat16)}
    write_folder(tmp_path / "big", tensors)
    with Hub(tmp_path / "hub") as hub:
        for name in ("a", "b"):
            hub.add(f"org/{name}", tmp_path / "big")
        said = run(hub, tmp_path, "check", "--headers", "org/a", "org/b")

        assert "weights stay on the Hub" in said
        fetched = hub.seen(" storage ")
        assert len(fetched) == 2
        assert all(request.range for request in fetched)
        assert sum(request.sent for request in hub.requests) < 100_000
        assert not list(hub.home.rglob("*.safetensors"))
        assert sum(p.stat().st_size for p in hub.home.rglob("*") if p.is_file()) < 100_000


def test_a_dry_run_downloads_no_weights(hub: Hub, tmp_path: Path) -> None:
    """What a merge would do is said from headers alone."""
    assert "would write" in merge(hub, tmp_path, "--dry-run")
    assert not list(hub.home.rglob("*.safetensors"))
    assert not (tmp_path / "soup").exists()


def test_the_temporary_folder_is_left_as_it_was(hub: Hub, tmp_path: Path) -> None:
    """Placeholders go with the checkpoint they stand for, refused ones too."""
    spare = tmp_path / "spare"
    spare.mkdir()
    run(hub, tmp_path, "check", "--headers", "org/a", "org/b", TMPDIR=str(spare))
    assert list(spare.iterdir()) == []


@pytest.mark.fault("K10")
def test_a_branch_that_moves_meanwhile_changes_nothing(hub: Hub, tmp_path: Path) -> None:
    """Everything is read by the commit that was resolved first."""
    first = hub.commits("org/a")[0].id
    (tmp_path / "other").mkdir()
    other = related(1, seed=9).tuned[0]
    write_folder(tmp_path / "other", other, shards=2)
    hub.when(f"/org/a/resolve/{first}", lambda: hub.add("org/a", tmp_path / "other"))
    merge(hub, tmp_path)
    run(hub, tmp_path, "merge", "a", "b", "--lambda", "0.6,0.4", "-o", "here")

    assert hub.commits("org/a")[0].id != first
    assert alike(tmp_path / "soup", tmp_path / "here")
    assert f"org/a@{first}" in json.dumps(manifest(tmp_path / "soup"))


@pytest.mark.fault("K9")
def test_wrong_bytes_are_fetched_again_and_twice_wrong_are_refused(hub: Hub, tmp_path: Path) -> None:
    """A flipped byte of the right length is found by the Hub's SHA-256: once it heals, twice it is exit 8."""
    hub.fail("GET storage", flip=200)
    merge(hub, tmp_path)
    run(hub, tmp_path, "merge", "a", "b", "--lambda", "0.6,0.4", "-o", "here")
    assert alike(tmp_path / "soup", tmp_path / "here")

    shutil.rmtree(hub.home)
    hub.fail("GET storage", flip=200, times=2)
    said = merge(hub, tmp_path, "--overwrite", code=8)
    assert "E0717" in said
    assert not list(hub.home.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("/api/models/org/a", {"status": 429, "headers": {"Retry-After": "1"}}),
        ("/api/models/org/a", {"status": 503, "headers": {"Retry-After": "0"}, "times": 2}),
        ("/tree/", {"status": 503, "headers": {"Retry-After": "0"}}),
        ("GET storage", {"cut_after": 1000}),
    ],
)
@pytest.mark.fault("K5", "K6", "K7")
def test_what_passes_by_itself_is_waited_for(
    hub: Hub, tmp_path: Path, route: str, fault: dict[str, object]
) -> None:
    """429 once, 503 twice, a connection cut in mid-body: the merge comes out right."""
    hub.fail(route, **fault)  # type: ignore[arg-type]
    merge(hub, tmp_path)
    run(hub, tmp_path, "merge", "a", "b", "--lambda", "0.6,0.4", "-o", "here")

    assert alike(tmp_path / "soup", tmp_path / "here")


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "1"}},
        {"status": 503, "headers": {"Retry-After": "0"}, "times": 2},
        {"cut_after": 100},
        {"ignore_range": True},
    ],
)
@pytest.mark.fault("K7", "K8")
def test_headers_come_through_the_same_faults(hub: Hub, tmp_path: Path, fault: dict[str, object]) -> None:
    """Ranges continue where they broke, are asked for again, and may be ignored."""
    hub.fail("GET storage", **fault)  # type: ignore[arg-type]

    assert "mixable" in run(hub, tmp_path, "check", "--headers", "org/a", "org/b")


def test_a_busy_hub_is_exit_75(hub: Hub, tmp_path: Path) -> None:
    """After five refusals: try later, the same command."""
    hub.fail("GET storage", status=503, headers={"Retry-After": "0"}, times=50)
    said = run(hub, tmp_path, "check", "--headers", "org/a", "org/b", code=75)
    assert "E7510" in said
    assert "same command" in said


@pytest.mark.fault("K6")
def test_a_page_instead_of_weights_is_refused(hub: Hub, tmp_path: Path) -> None:
    """A proxy's HTML with 200 is no header."""
    hub.fail("GET storage", body=b"<html>sign in</html>", times=50)

    assert "E0718" in run(hub, tmp_path, "check", "--headers", "org/a", "org/b", code=8)


@pytest.mark.parametrize(
    ("kind", "code"), [("gated", "E0711"), ("private", "E0701"), ("missing", "E0701"), ("revision", "E0713")]
)
@pytest.mark.fault("K3", "K4")
def test_what_may_not_be_read_says_so(hub: Hub, tmp_path: Path, kind: str, code: str) -> None:
    """Gated, private, missing, no such revision: one line what, one line what to do, exit 7."""
    folder = tmp_path / "b"
    hub.add("org/gated", folder, gated=True)
    hub.add("other/private", folder, private=True)
    named = {
        "gated": "org/gated",
        "private": "other/private",
        "missing": "org/nothing",
        "revision": "org/b@no",
    }[kind]
    said = run(
        hub, tmp_path, "check", "org/a", named, code=7, token=None if kind == "private" else "hf_write"
    )

    assert code in said
    assert "hint" in said
    assert "Traceback" not in said


@pytest.mark.fault("K19")
def test_an_unreachable_hub_is_said_at_once(hub: Hub, tmp_path: Path) -> None:
    """No network: exit 75, in words, unless the cache has it; nobody waits for the client's own five tries (23 s each)."""
    merge(hub, tmp_path)
    nowhere = {"HF_ENDPOINT": "http://localhost:9"}
    commit = hub.commits("org/a")[0].id
    began = time.monotonic()
    merge(hub, tmp_path, "--overwrite", **nowhere)
    run(hub, tmp_path, "check", f"org/a@{commit}", "org/b", **nowhere)
    said = run(hub, tmp_path, "check", "org/a", "org/base", code=75, **nowhere)

    assert "E7510" in said
    assert time.monotonic() - began < 20


def test_a_hub_that_comes_back_is_asked_again(hub: Hub) -> None:
    """One silence is remembered only where the cache could answer: within one process the next question is asked."""
    with inside(hub) as patch:
        at = f"org/a@{hub.commits('org/a')[0].id}"
        patch.setattr(constants, "ENDPOINT", "http://localhost:9")
        for _ in range(2):
            with pytest.raises(BusyError):
                open_checkpoint(at)
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        source = open_checkpoint(at)
        source.close()

    assert source.header


@pytest.mark.fault("K11")
def test_a_renamed_model_is_read_and_the_new_name_said(hub: Hub, tmp_path: Path) -> None:
    """The redirect is followed, and printed."""
    hub.rename("org/b", "org/better")
    said = merge(hub, tmp_path)

    assert "org/b was renamed: it is org/better now" in said


@pytest.mark.fault("K1")
def test_a_rejected_token_is_not_a_missing_model(hub: Hub, tmp_path: Path) -> None:
    """A token that the Hub does not know is named as the trouble, and never shown."""
    said = run(hub, tmp_path, "check", "org/a", "org/b", code=7, token="hf_unknown")

    assert "E0712" in said
    assert "hf_unknown" not in said


def test_a_subfolder_and_a_file_are_addresses_too(hub: Hub, tmp_path: Path) -> None:
    """hf://org/name@rev/folder and a browser's URL of a file open what they name."""
    hub.add("org/many", {f"runs-1/{p.name}": p.read_bytes() for p in (tmp_path / "b").iterdir()})
    run(hub, tmp_path, "diff", "hf://org/many@main/runs-1", "b")
    run(hub, tmp_path, "diff", "hf://org/many/runs-1/model.safetensors", "b/model.safetensors")
    assert "E0714" in run(hub, tmp_path, "diff", "hf://org/many/runs-2", "b", code=7)


@pytest.mark.parametrize("name", ["hdfs://host/key", "swift://bucket/key"])
def test_other_schemes_are_refused_with_a_hint(hub: Hub, tmp_path: Path, name: str) -> None:
    """E0810, and nobody is asked."""
    assert "E0810" in run(hub, tmp_path, "check", name, "b", code=8)
    assert hub.requests == []


def test_a_typo_of_a_local_path_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    """`runs/b` in a folder `runs` that has no b is a local mistake."""
    os.makedirs(tmp_path / "runs")
    said = run(hub, tmp_path, "check", "a", "runs/b", code=7)
    assert "hf://runs/b" in said
    assert hub.requests == []


def test_adapters_of_the_hub_make_an_adapter(hub: Hub, tmp_path: Path) -> None:
    """Two LoRA repositories become one adapter, as two folders do."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"], "task_type": "CAUSAL_LM",
              "base_model_name_or_path": "org/base"}  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    for name in ("x", "y"):
        tensors = {f"base_model.model.l.0.q.lora_{side}.weight": torch.randn(shape, generator=generator)
                   for side, shape in (("A", (2, 8)), ("B", (6, 2)))}  # fmt: skip
        folder = write_folder(
            tmp_path / name, tensors, config=None, side_files={"adapter_config.json": json.dumps(config)}
        )
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        hub.add(f"org/{name}", folder)
    run(hub, tmp_path, "merge", "org/x", "org/y", "--lambda", "0.5,0.5", "-o", "soup")
    run(hub, tmp_path, "merge", "x", "y", "--lambda", "0.5,0.5", "-o", "here")

    assert (tmp_path / "soup" / "adapter_config.json").exists()
    assert alike(tmp_path / "soup", tmp_path / "here")


@pytest.mark.fault("K12")
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    """A list of files with a hostile name in it is refused whole, before anything is downloaded."""
    write_folder(tmp_path / "a", related(1).base)
    with Hub(tmp_path / "hub") as hub:
        hub.add("org/evil", tmp_path / "a")
        hub.add("org/evil", {"..\\evil.json": b"{}"})

        assert "E0718" in run(hub, tmp_path, "check", "org/evil", "a", code=8)
        assert hub.seen("/resolve/") == []


def test_a_recipe_may_name_addresses_and_paths(hub: Hub, tmp_path: Path) -> None:
    """org/a of a recipe is the Hub's where there is no such path beside the recipe; ../b is a path."""
    (tmp_path / "recipes").mkdir()
    rows = "ingredients:\n  - checkpoint: org/a\n    lambda: 0.6\n  - checkpoint: ../b\n    lambda: 0.4\n"
    (tmp_path / "recipes" / "r.yaml").write_text(rows)
    run(hub, tmp_path, "merge", "recipes/r.yaml", "-o", "soup")
    run(hub, tmp_path, "merge", "a", "b", "--lambda", "0.6,0.4", "-o", "here")

    assert alike(tmp_path / "soup", tmp_path / "here")


@pytest.mark.parametrize(("status", "code"), [(403, "E0715"), (418, "E0719")])
def test_other_refusals_of_the_hub_are_told(hub: Hub, tmp_path: Path, status: int, code: str) -> None:
    """A 403 that is no gate, and an answer nobody expects: exit 7, with what to do."""
    hub.fail("/api/models/org/a", status=status, times=50)
    said = run(hub, tmp_path, "check", "--headers", "org/a", "org/b", code=7)

    assert code in said
    assert "hint" in said


@pytest.mark.fault("K20")
def test_a_cache_that_cannot_be_written_is_told(hub: Hub, tmp_path: Path) -> None:
    """Exit 6, with the variable that names another place."""
    (tmp_path / "full").write_text("no folder")
    said = run(hub, tmp_path, "check", "org/a", "org/b", code=6, HF_HOME=str(tmp_path / "full"))

    assert "E0605" in said
    assert "HF_HOME" in said
