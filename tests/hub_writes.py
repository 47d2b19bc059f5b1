"""What the Hub does for those who write, one function a route, for the tests' Hub."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hub_calls import MODEL, NAME, Call, by_signature, route, signed
from hub_card import problems
from hub_store import Commit, Entry, PullRequest, Refusal, Repository, is_large
from hub_wire import Answer, as_json

if TYPE_CHECKING:
    from hub_server import Hub


@route("POST", "/api/repos/create")
def create(call: Call) -> Answer:
    """A new repository with its first commit; 409 where there is one."""
    given = call.json()
    assert given.get("type", "model") == "model", given
    name = f"{given.get('organization') or 'me'}/{given['name']}"
    url = f"{call.hub.endpoint}/{name}"
    call.may_write(name)
    if name in call.hub.store.repositories:
        return as_json({"error": "You already created this model repo", "url": url}, 409)
    call.hub.store.moved.pop(name, None)
    call.hub.add(
        name,
        {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"},
        title="initial commit",
    )
    call.hub.repository(name).private = given.get("visibility") == "private"
    return as_json({"url": url, "name": name, "id": name})


@route("DELETE", "/api/repos/delete")
def delete(call: Call) -> Answer:
    """A repository is gone."""
    given = call.json()
    call.parts = [f"{given.get('organization') or 'me'}/{given['name']}"]
    call.may_write(call.parts[0])
    call.hub.delete(call.repository().id)
    return as_json({})


@route("POST", "/api/repos/move")
def move(call: Call) -> Answer:
    """A repository has another name."""
    given = call.json()
    call.parts = [given["fromRepo"]]
    call.may_write(given["fromRepo"])
    call.may_write(given["toRepo"])
    call.hub.rename(call.repository().id, given["toRepo"])
    return as_json({})


@route("POST", "/api/validate-yaml")
def validate(call: Call) -> Answer:
    """The card's metadata, checked."""
    errors, warnings = problems(call.json()["content"])
    found = {
        "errors": [{"message": one} for one in errors],
        "warnings": [{"message": one} for one in warnings],
    }
    return as_json(found, 400 if errors else 200)


# Writing.


@route("POST", rf"{MODEL}/preupload/([^/]+)")
def preupload(call: Call) -> Answer:
    """Which way each file goes, and what is there already."""
    held = call.repository()
    call.may_write(held.id, pull_request=to_pull_request(call))
    present = held.commit(call.parts[1]).tree
    given = call.json()
    assert len(given["files"]) <= 256, "the Hub takes 256 at a time"
    patterns = [line for line in given.get("gitIgnore", "").splitlines() if line and not line.startswith("#")]
    rows = []
    for one in given["files"]:
        path = one["path"]
        row = {"path": path, "uploadMode": "lfs" if is_large(path, one["size"]) else "regular"}
        row["shouldIgnore"] = any(
            fnmatch.fnmatch(path, p) or fnmatch.fnmatch(path.split("/")[-1], p) for p in patterns
        )
        rows.append(row | ({"oid": present[path].etag} if path in present else {}))
    return as_json({"files": rows})


def to_pull_request(call: Call) -> bool:
    """Whether the write goes to a pull request, new or open."""
    return "create_pr" in call.query or call.parts[1].startswith("refs/pr/")


@route("POST", rf"/{NAME}\.git/info/lfs/objects/batch")
def batch(call: Call) -> Answer:
    """Where to put which large objects: in one piece, or in parts above `hub.part` bytes."""
    assert call.request.headers.get("content-type", "").startswith("application/vnd.git-lfs+json"), "not LFS"
    held, given = call.repository(), call.json()
    call.may_write(held.id, pull_request=True)
    rows = []
    for one in given["objects"]:
        row: dict[str, Any] = {"oid": one["oid"], "size": one["size"]}
        if one["oid"] not in call.hub.store.objects:
            row["actions"] = {"upload": upload_action(call.hub, one["oid"], one["size"], given["transfers"])}
            row["actions"]["verify"] = {"href": f"{call.hub.endpoint}/{held.id}.git/info/lfs/objects/verify"}
        rows.append(row)
    return as_json({"transfer": "multipart" if call.hub.part else "basic", "objects": rows})


def upload_action(hub: Hub, oid: str, size: int, transfers: Iterable[str]) -> dict[str, Any]:
    """Git LFS's action, with the Hub's way to say "in parts"."""
    if hub.part is None or size <= hub.part or "multipart" not in transfers:
        return {"href": signed(hub, oid, size=size)}
    count = -(-size // hub.part)
    parts = {
        str(n): signed(hub, oid, size=min(hub.part, size - hub.part * (n - 1)), part=n)
        for n in range(1, count + 1)
    }
    address = f"{hub.endpoint}/api/complete_multipart?signature={hub.signature}&size={size}"
    return {"href": address, "header": {"chunk_size": str(hub.part), **parts}}


@route("PUT", "/objects/([0-9a-f]{64})", "storage")
def put(call: Call) -> Answer:
    """An object's bytes (their sha256 is checked) or one part of them."""
    by_signature(call)
    if len(call.body) != int(call.query["size"][0]):
        raise Refusal(400, "IncompleteBody")
    if "part" in call.query:
        call.hub.parts[call.parts[0], int(call.query["part"][0])] = call.body
        return Answer(200, b"", {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})
    return keep(call.hub, call.parts[0], call.body)


def keep(hub: Hub, sha256: str, data: bytes) -> Answer:
    """Take an object whose bytes are what its name says."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Refusal(400, "the object's sha256 is another than its name")
    hub.store.objects[sha256] = data
    return Answer(200, b"", {"ETag": f'"{sha256}"'})


@route("POST", "/api/complete_multipart")
def complete(call: Call) -> Answer:
    """Join the parts that were put."""
    if call.query.get("signature") != [call.hub.signature]:
        raise Refusal(403, "SignatureDoesNotMatch")
    given = call.json()
    pieces = [call.hub.parts.get((given["oid"], one["partNumber"]), b"") for one in given["parts"]]
    tags = [f'"{hashlib.md5(piece).hexdigest()}"' for piece in pieces]
    if tags != [one["etag"] for one in given["parts"]]:
        raise Refusal(400, "InvalidPart")
    return keep(call.hub, given["oid"], b"".join(pieces))


@route("POST", rf"/{NAME}\.git/info/lfs/objects/verify")
def verify(call: Call) -> Answer:
    """Whether an object is here, as long as it should be."""
    call.may_write(call.repository().id, pull_request=True)
    data = call.hub.store.objects.get(call.json()["oid"])
    if data is None or len(data) != call.json()["size"]:
        raise Refusal(404, "Object does not exist")
    return as_json({})


@route("POST", rf"{MODEL}/commit/([^/]+)")
def commit(call: Call) -> Answer:
    """One commit from its lines of JSON, on a branch, a pull request, or a new pull request."""
    held, hub = call.repository(), call.hub
    call.may_write(held.id, pull_request=to_pull_request(call))
    lines = [json.loads(line) for line in call.body.splitlines() if line]
    header = lines[0]["value"]
    assert lines[0]["key"] == "header", lines[0]["key"]
    assert header["summary"], "a commit has a title"
    before = held.commit(call.parts[1])
    if header.get("parentCommit") not in (None, before.id):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files = dict(before.tree)
    for line in lines[1:]:
        change(files, line["key"], line["value"], call)
    name, found = call.parts[1], {}
    if held.ref(name) is None:
        raise Refusal(400, "commits go to a branch or a pull request")
    if "create_pr" in call.query:
        pull = open_pull(held, header["summary"], header.get("description", ""), "open", before)
        name, found = pull.ref, {"pullRequestUrl": f"{hub.endpoint}/{held.id}/discussions/{pull.number}"}
    made = held.write(name, files, header["summary"], header.get("description", ""), seconds=hub.store.tick())
    url = f"{hub.endpoint}/{held.id}/commit/{made.id}"
    return as_json({"success": True, "commitOid": made.id, "commitUrl": url, "hookOutput": "", **found})


def change(files: dict[str, Entry], key: str, value: dict[str, Any], call: Call) -> None:
    """One line of a commit."""
    hub, path = call.hub, value["path"]
    if any(piece in ("", ".", "..", ".git") for piece in path.split("/")):
        raise Refusal(400, f"invalid path: {path}")
    if key == "file":
        assert value["encoding"] == "base64", value["encoding"]
        data = base64.b64decode(value["content"], validate=True)
        if is_large(path, len(data)):
            raise Refusal(400, f"{path} is a large file: upload it to the storage")
        files[path] = hub.store.entry(path, data)
    elif key == "lfsFile":
        assert value["algo"] == "sha256", value["algo"]
        if value["oid"] not in hub.store.objects and not hub.xet.restore(
            value["oid"], value["size"], hub.store.objects
        ):
            raise Refusal(400, f"{path}: the storage has no object {value['oid']}")
        if len(hub.store.objects[value["oid"]]) != value.get("size", len(hub.store.objects[value["oid"]])):
            raise Refusal(400, f"{path}: the object has another size")
        files[path] = hub.store.pointer(path, value["oid"])
    elif key == "deletedFile":
        if path not in files:
            raise Refusal(404, f"{path} isn't there to be deleted", "EntryNotFound")
        del files[path]
    elif key == "deletedFolder":
        for inner in [one for one in files if one.startswith(path.rstrip("/") + "/")]:
            del files[inner]
    else:
        raise Refusal(400, f"unknown operation {key}")


@route("POST DELETE", rf"{MODEL}/branch/([^/]+)")
def branch(call: Call) -> Answer:
    """Make a branch (409 where it is), or take it away."""
    held, name = call.repository(), f"refs/heads/{call.parts[1]}"
    call.may_write(held.id)
    if call.request.method == "DELETE":
        if held.refs.pop(name, None) is None:
            raise Refusal(404, "Reference does not exist", "RevisionNotFound")
        return as_json({})
    if name in held.refs:
        raise Refusal(409, f"Reference already exists: {name}")
    held.refs[name] = held.commit((call.json() or {}).get("startingPoint", "main")).id
    return as_json({})


# Pull requests.


def open_pull(held: Repository, title: str, description: str, status: str, base: Commit) -> PullRequest:
    """A new pull request that starts from a commit."""
    number = len(held.pulls) + 1
    pull = PullRequest(number, title, description, status, f"refs/pr/{number}", base.id)
    held.pulls.append(pull)
    held.refs[pull.ref] = base.id
    return pull


def pull_of(call: Call) -> tuple[Repository, PullRequest]:
    """The pull request a path names."""
    held, number = call.repository(), int(call.parts[1])
    if not 0 < number <= len(held.pulls):
        raise Refusal(404, "Discussion not found", "EntryNotFound")
    return held, held.pulls[number - 1]


def listed(held: Repository, pull: PullRequest) -> dict[str, Any]:
    """A pull request in a list."""
    row = {"num": pull.number, "title": pull.title, "status": pull.status, "isPullRequest": True}
    date, repo = held.history[pull.base].date, {"name": held.id, "type": "model"}
    return {**row, "createdAt": date, "author": {"name": "me"}, "repo": repo}


@route("POST GET", f"{MODEL}/discussions")
def discussions(call: Call) -> Answer:
    """Open one, or list them."""
    held = call.repository()
    if call.request.method == "GET":
        rows = [listed(held, pull) for pull in held.pulls]
        return as_json({"discussions": rows, "count": len(rows), "start": 0, "numClosedDiscussions": 0})
    call.may_write(held.id, pull_request=True)
    given = call.json()
    assert given["pullRequest"] is True, "only pull requests are made here"
    pull = open_pull(held, given["title"], given["description"], "draft", held.commit("main"))
    return as_json({"num": pull.number, "url": f"{call.hub.endpoint}/{held.id}/discussions/{pull.number}"})


@route("GET", rf"{MODEL}/discussions/(\d+)")
def discussion(call: Call) -> Answer:
    """One pull request: what was said, what it changes."""
    held, pull = pull_of(call)
    row = listed(held, pull)
    said = {"latest": {"raw": pull.description, "html": pull.description}, "edited": False, "hidden": False}
    first = {"id": "1", "type": "comment", "createdAt": row["createdAt"], "author": {"name": "me"}}
    events = [{**first, "data": {**said, "history": []}}]
    return as_json(
        {
            **row,
            "events": events,
            "diff": "",
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
        }
    )


@route("POST", rf"{MODEL}/discussions/(\d+)/(merge|status)")
def settle(call: Call) -> Answer:
    """Merge a pull request into main, or open or close it."""
    held, pull = pull_of(call)
    call.may_write(held.id)
    if call.parts[2] == "status":
        pull.status = call.json()["status"]
    else:
        title = f"{pull.title} (#{pull.number})"
        held.write("main", held.commit(pull.ref).tree, title, pull.description, seconds=call.hub.store.tick())
        pull.status = "merged"
    said = {
        "id": "2",
        "type": "status-change",
        "createdAt": held.commit("main").date,
        "author": {"name": "me"},
    }
    return as_json({"newStatus": {**said, "data": {"status": pull.status}}})
