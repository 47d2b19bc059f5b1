"""The real huggingface_hub client and the real `hf` command, in processes of their own, at the tests' Hub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from hub_server import Hub

HF = Path(sys.executable).with_name("hf")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
ME = {"NAME": "me", "EMAIL": "me@example.org", "DATE": "1767225601 +0000"}
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": WEIGHTS, "sub/notes.txt": b"notes\n"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub that refuses to have answered anything unknown."""
    with Hub(tmp_path / "hub") as started:
        yield started


def run(
    hub: Hub, *command: str, fails: bool = False, token: str | None = "hf_write", xet: bool = False
) -> str:
    """A command at this Hub; what it printed, both streams."""
    done = subprocess.run(
        command,
        env=hub.environment(token=token, xet=xet),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr + done.stdout


def client(hub: Hub, code: str, **how: str | bool | None) -> object:
    """What a program says last, in JSON, that has the client's names at hand."""
    names = "import json, sys\nfrom pathlib import Path\nfrom huggingface_hub import *\napi = HfApi()\n"
    said = run(hub, sys.executable, "-W", "ignore", "-c", names + textwrap.dedent(code), **how)
    return json.loads(said.splitlines()[-1])


def on_disk(folder: Path) -> dict[str, bytes]:
    """A downloaded folder's files."""
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {path: data for path, data in found.items() if not path.startswith(".cache/")}


def test_a_snapshot_holds_every_byte_though_the_tree_comes_in_pages(hub: Hub) -> None:
    """What was added comes back, and no token goes to the storage."""
    hub.add("org/base", FILES)
    hub.page, hub.cached = 2, True
    path = client(hub, "print(json.dumps(snapshot_download('org/base')))")
    assert on_disk(Path(path)) == FILES
    assert len(hub.seen("/tree/")) == 2
    assert [one.authorized for one in hub.seen("GET storage")] == [False]
    assert all(one.authorized for one in hub.seen("endpoint /api/models"))


def test_hf_download_and_hf_upload_make_the_round_trip_through_lfs(hub: Hub, tmp_path: Path) -> None:
    """`hf upload` of a folder is one commit whose `hf download` is the folder."""
    for path, data in FILES.items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(data)
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\n# A soup\n")
    run(hub, str(HF), "upload", "me/soup", str(tmp_path / "out"), "--commit-message", "a soup", "--private")
    assert {k: v for k, v in hub.files("me/soup").items() if k != ".gitattributes"} == on_disk(
        tmp_path / "out"
    )
    assert [c.title for c in hub.commits("me/soup")] == ["a soup", "initial commit"]
    assert hub.repository("me/soup").private
    assert [one.received for one in hub.seen("PUT storage")] == [len(WEIGHTS)]
    run(hub, str(HF), "download", "me/soup", "--local-dir", str(tmp_path / "back"))
    assert on_disk(tmp_path / "back") == hub.files("me/soup")


def test_hf_upload_and_hf_download_make_the_round_trip_through_xet(hub: Hub, tmp_path: Path) -> None:
    """With Xet nothing large passes through HTTP, and what is committed has the sha256 it says."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(WEIGHTS)
    run(hub, str(HF), "upload", "me/soup", str(tmp_path / "out"), xet=True)
    assert hub.files("me/soup")["model.safetensors"] == WEIGHTS
    run(hub, str(HF), "download", "me/soup", "--local-dir", str(tmp_path / "back"), xet=True)
    assert on_disk(tmp_path / "back") == hub.files("me/soup")
    assert not [one for one in hub.requests if one.host == "storage"]
    headers = {"Authorization": "Bearer hf_read", "Range": "bytes=1000-1999"}
    assert fetched(hub, "/me/soup/resolve/main/model.safetensors", **headers)[:2] == (206, WEIGHTS[1000:2000])


@pytest.mark.parametrize("xet", [False, True])
def test_hf_upload_opens_a_pull_request_and_leaves_main_alone(hub: Hub, tmp_path: Path, xet: bool) -> None:
    """`--create-pr` puts the folder on refs/pr/1."""
    hub.add("other/model", {"config.json": b"{}"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(WEIGHTS)
    run(hub, str(HF), "upload", "other/model", str(tmp_path / "out"), "--create-pr", xet=xet)
    assert hub.files("other/model") == {"config.json": b"{}"}
    (pull,) = hub.pull_requests("other/model")
    assert (pull.ref, pull.status) == ("refs/pr/1", "draft" if xet else "open")
    assert hub.files("other/model", pull.ref) == {"config.json": b"{}", "model.safetensors": WEIGHTS}


def test_a_pull_request_is_made_read_and_merged_by_the_client(hub: Hub) -> None:
    """create_commit(create_pr=True), its refs, its details and its merge."""
    hub.add("me/soup", FILES)
    code = """
    add = CommitOperationAdd("new.txt", b"new")
    made = api.create_commit("me/soup", [add, CommitOperationDelete("config.json")], commit_message="t", create_pr=True)
    refs = api.list_repo_refs("me/soup", include_pull_requests=True)
    details = api.get_discussion_details("me/soup", made.pr_num)
    api.merge_pull_request("me/soup", made.pr_num)
    print(json.dumps([made.pr_revision, made.oid, refs.pull_requests[0].target_commit, details.status]))
    """
    pull, oid, target, status = client(hub, code)
    assert (pull, oid, status) == ("refs/pr/1", target, "open")
    assert hub.files("me/soup") == {
        "model.safetensors": WEIGHTS,
        "new.txt": b"new",
        "sub/notes.txt": b"notes\n",
    }
    assert hub.commits("me/soup")[0].files == ("config.json", "new.txt")


def test_a_stale_parent_is_refused_and_a_second_upload_sends_nothing(hub: Hub) -> None:
    """412 where someone committed meanwhile; objects that are there aren't sent again."""
    first = hub.add("me/soup", FILES)
    hub.part = 1 << 18
    hub.when("POST endpoint /api/models/me/soup/commit/", lambda: hub.add("me/soup", {"theirs": b"1"}))
    code = f"""
    def attempt(parent):
        add = CommitOperationAdd("two.safetensors", bytes(1000000))
        return api.create_commit("me/soup", [add], commit_message="t", parent_commit=parent).oid
    try:
        attempt({first!r})
    except Exception as error:
        print(json.dumps([error.response.status_code, attempt(api.model_info("me/soup").sha)]))
    """
    status, oid = client(hub, code)
    assert (status, oid) == (412, hub.commits("me/soup")[0].id)
    assert sorted(hub.files("me/soup")) == [
        "config.json",
        "model.safetensors",
        "sub/notes.txt",
        "theirs",
        "two.safetensors",
    ]
    assert [one.received for one in hub.seen("PUT storage")] == [1 << 18] * 3 + [1000000 - 3 * (1 << 18)]


def test_headers_and_single_ranges_are_all_that_is_read(hub: Hub) -> None:
    """get_safetensors_metadata and the file system read ranges, which the storage answers with 206."""
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    hub.add(
        "org/base", {"model.safetensors": len(header).to_bytes(8, "little") + header + bytes(8) + WEIGHTS}
    )
    code = """
    found = api.get_safetensors_metadata("org/base")
    piece = HfFileSystem().cat_file("org/base/model.safetensors", start=8, end=20, block_size=1000)
    print(json.dumps([list(found.weight_map), piece.decode()]))
    """
    assert client(hub, code) == [["w"], header[:12].decode()]
    assert [one.status for one in hub.seen("GET storage")] == [206, 206]
    assert sum(one.sent for one in hub.seen("GET storage")) < 200_000


REFUSALS = """
def said(what):
    try:
        what()
    except Exception as error:
        return type(error).__name__
cases = {"private": "me/secret", "missing": "me/none", "gated": "org/gated", "open": "me/open"}
found = {name: said(lambda: hf_hub_download(repo, "config.json")) for name, repo in cases.items()}
found["revision"] = said(lambda: hf_hub_download("me/open", "config.json", revision="none"))
found["file"] = said(lambda: hf_hub_download("me/open", "none.json"))
found["write"] = said(lambda: api.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="me/open"))
print(json.dumps(found))
"""
EVER = {"missing": "RepositoryNotFoundError", "gated": "GatedRepoError", "open": None}
EVER |= {"revision": "RevisionNotFoundError", "file": "RemoteEntryNotFoundError"}


@pytest.mark.parametrize(
    ("token", "differs"),
    [
        ("hf_write", {"private": None, "write": None}),
        ("hf_read", {"private": None, "write": "HfHubHTTPError"}),
        (None, {"private": "RepositoryNotFoundError", "write": "HfHubHTTPError"}),
    ],
)
def test_the_client_knows_every_refusal_by_its_own_name(
    hub: Hub, token: str | None, differs: dict[str, str | None]
) -> None:
    """Gated, private, missing, no such revision, no such file, no right to write."""
    hub.add("me/secret", {"config.json": b"1"}, private=True)
    hub.add("org/gated", {"config.json": b"2"}, gated=True)
    hub.add("me/open", {"config.json": b"3"})
    assert client(hub, REFUSALS, token=token) == EVER | differs


def test_a_token_nobody_has_is_refused_with_401(hub: Hub) -> None:
    """Reading an open repository with it, too."""
    hub.add("me/open", FILES)
    assert "401" in run(hub, str(HF), "download", "me/open", token="hf_stale", fails=True)


def test_a_renamed_repository_redirects_until_the_new_one_is_deleted(hub: Hub) -> None:
    """The old name still downloads; once it is deleted nothing does."""
    hub.add("org/old", FILES)
    hub.rename("org/old", "org/new")
    code = """
    path = snapshot_download("org/old")
    api.delete_repo("org/new")
    print(json.dumps([path, api.repo_exists("org/new"), api.repo_exists("org/old")]))
    """
    path, new, old = client(hub, code)
    assert on_disk(Path(path)) == FILES
    assert (new, old) == (False, False)


def test_a_cut_connection_is_resumed_where_it_broke(hub: Hub) -> None:
    """The real client, which writes 10 MiB at a time, continues by Range after what it wrote."""
    written, size = 10 << 20, 11 << 20
    hub.add("org/base", {"model.safetensors": bytes(size)})
    hub.fail("GET storage", cut_after=size - 100)
    path = client(hub, "print(json.dumps(hf_hub_download('org/base', 'model.safetensors')))")
    assert Path(path).read_bytes() == bytes(size)
    assert [(one.range, one.sent) for one in hub.seen("GET storage")] == [
        (None, size - 100),
        (f"bytes={written}-", size - written),
    ]


def fetched(hub: Hub, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Message]:
    """One plain request to the endpoint, its redirects followed with all headers but the token."""
    request = urllib.request.Request(f"{hub.endpoint}{path}", data=body, headers=headers)
    if token := headers.get("Authorization"):
        request.remove_header("Authorization")
        request.add_unredirected_header("Authorization", token)
    try:
        with DIRECT.open(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_faults_come_in_their_order_and_then_all_is_well(hub: Hub) -> None:
    """429 once, 503 twice, HTML with 200, then the file."""
    hub.add("org/base", FILES)
    address = "/org/base/resolve/main/model.safetensors"
    hub.fail("/resolve/", status=429, headers={"Retry-After": "0"})
    hub.fail("/resolve/", status=503, times=2)
    hub.fail(re.compile(r"^GET storage .*name=model\.safetensors"), body=b"<html>")
    answers = [fetched(hub, address) for _ in range(5)]
    assert [status for status, _, _ in answers] == [429, 503, 503, 200, 200]
    assert answers[0][2]["Retry-After"] == "0"
    assert [data for _, data, _ in answers[3:]] == [b"<html>", WEIGHTS]


def test_a_flipped_byte_waits_for_the_answer_that_holds_it(hub: Hub) -> None:
    """Only the range with the byte is wrong, once."""
    hub.add("org/base", FILES)
    hub.fail("GET storage", flip=150)
    address = "/org/base/resolve/main/model.safetensors"
    for first, last, wrong in [(0, 99, None), (100, 199, 50), (100, 199, None)]:
        status, data, _ = fetched(hub, address, Range=f"bytes={first}-{last}")
        expected = bytearray(WEIGHTS[first : last + 1])
        if wrong is not None:
            expected[wrong] ^= 1
        assert (status, data) == (206, bytes(expected))


def test_ranges_are_answered_as_rfc_9110_says(hub: Hub) -> None:
    """First to last, open, suffix, past the end, and a server that ignores them."""
    hub.add("org/base", {"config.json": b"0123456789"})
    address = "/org/base/resolve/main/config.json"
    asked = {"bytes=2-4": b"234", "bytes=7-": b"789", "bytes=-3": b"789", "bytes=8-99": b"89"}
    assert {wanted: fetched(hub, address, Range=wanted)[:2] for wanted in asked} == {
        wanted: (206, data) for wanted, data in asked.items()
    }
    assert fetched(hub, address, Range="bytes=10-")[0] == 416
    hub.fail("/resolve/", ignore_range=True)
    assert fetched(hub, address, Range="bytes=2-4")[:2] == (200, b"0123456789")


def test_strangers_see_no_private_repository_and_the_files_of_no_gated_one(hub: Hub) -> None:
    """Private is as missing, by whatever status the Hub has for that; gated is listed but not read."""
    hub.add("me/secret", FILES, private=True)
    hub.add("org/gated", FILES, gated=True)
    token = {"Authorization": "Bearer hf_read"}
    for hub.stranger in (404, 401):
        for repo in ("me/secret", "me/none"):
            status, _, headers = fetched(hub, f"/api/models/{repo}")
            assert (status, headers["X-Error-Code"]) == (hub.stranger, "RepoNotFound")
    assert fetched(hub, "/api/models/me/secret", **token)[0] == 200
    assert fetched(hub, "/api/models/org/gated")[0] == 200
    address = "/org/gated/resolve/main/model.safetensors"
    assert [fetched(hub, address, **how)[2]["X-Error-Code"] for how in ({}, token)] == ["GatedRepo"] * 2
    hub.grant("org/gated")
    assert fetched(hub, address)[0] == 403
    assert fetched(hub, address, **token)[:2] == (200, WEIGHTS)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ("license: mit\nbase_model: [org/base]\nbase_model_relation: merge", None),
        ("license: none-of-these", '"license" must be one of'),
        ("base_model: /home/me/base", '"base_model"'),
        ("model-index:\n- name: a\n  results:\n  - task: {type: x}\n    metrics: []", "dataset.type"),
        ("a: [", "Invalid YAML"),
    ],
)
def test_a_card_the_hub_would_not_take_is_refused(hub: Hub, metadata: str, said: str | None) -> None:
    """400 and the reasons."""
    body = json.dumps({"content": f"---\n{metadata}\n---\n# A soup", "repoType": "model"}).encode()
    status, data, _ = fetched(hub, "/api/validate-yaml", body=body)
    errors = json.loads(data)["errors"]
    assert (status, len(errors) > 0) == ((400, True) if said else (200, False))
    assert said is None or said in " ".join(one["message"] for one in errors)


def test_branches_are_made_moved_and_listed(hub: Hub) -> None:
    """A branch made from a commit, a branch that moves, a branch taken away."""
    first = hub.add("me/soup", {"a": b"1"})
    code = f"""
    api.create_branch("me/soup", branch="draft/one", revision={first!r})
    api.upload_file(path_or_fileobj=b"2", path_in_repo="b", repo_id="me/soup", revision="draft/one")
    api.create_branch("me/soup", branch="gone")
    api.delete_branch("me/soup", branch="gone")
    names = [one.name for one in api.list_repo_refs("me/soup").branches]
    info = [one.path for one in api.get_paths_info("me/soup", ["a", "b", "c"], revision="draft/one")]
    print(json.dumps([names, info, [one.title for one in api.list_repo_commits("me/soup", revision="draft/one")]]))
    """
    assert client(hub, code) == [
        ["main", "draft/one"],
        ["a", "b"],
        [hub.commits("me/soup", "draft/one")[0].title, "add files"],
    ]
    assert hub.files("me/soup") == {"a": b"1"}
    hub.move_branch("me/soup", hub.commits("me/soup", "draft/one")[0].id)
    assert hub.files("me/soup") == {"a": b"1", "b": b"2"}


def test_a_lost_answer_took_effect_and_a_broken_request_did_not(hub: Hub) -> None:
    """`lost` is after the commit, `reset` before it."""
    hub.add("me/soup", FILES)
    hub.fail("/commit/main", reset=True)
    hub.fail("/commit/main", lost=True)
    body = b'{"key":"header","value":{"summary":"t"}}\n{"key":"deletedFile","value":{"path":"config.json"}}'
    for left in (3, 2):
        request = urllib.request.Request(f"{hub.endpoint}/api/models/me/soup/commit/main", data=body)
        request.add_header("Authorization", "Bearer hf_write")
        with pytest.raises(OSError, match=r"reset|closed"):
            DIRECT.open(request, timeout=30)
        assert len(hub.files("me/soup")) == left


def test_the_storage_takes_no_token_and_unknown_routes_are_told() -> None:
    """What the strict Hub fails a test for."""
    with Hub(strict=False) as hub:
        hub.add("org/base", FILES)
        fetched(hub, "/org/base/resolve/main/model.safetensors")
        address = hub.storage + hub.requests[-1].path
        careless = urllib.request.Request(address, headers={"Authorization": "Bearer hf_write"})
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            DIRECT.open(careless, timeout=30)
        refused.value.close()
        assert hub.leaks == hub.requests[-1:]
        assert fetched(hub, "/api/datasets/org/base")[0] == 404
        assert hub.unknown == ["GET endpoint /api/datasets/org/base"]


def test_commit_ids_are_gits_own(hub: Hub, tmp_path: Path) -> None:
    """Git makes the same id of the same files, large ones as LFS pointers."""
    oid = hub.add("org/base", FILES | {"sub.txt": b"", "sub-1/x": b"x"})
    commit = hub.commits("org/base")[0]
    for entry in commit.tree.values():
        (tmp_path / "git" / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "git" / entry.path).write_bytes(entry.data)
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in ME.items()}
    alone = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}

    def git(*command: str) -> str:
        done = subprocess.run(
            ("git", *command),
            cwd=tmp_path / "git",
            env=who | alone,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    assert git("commit-tree", "-m", commit.title, git("write-tree")) == oid
