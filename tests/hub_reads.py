"""What the Hub answers to those who read, one function a route, for the tests' Hub."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import parse_qs, quote

import yaml
from hub_calls import MODEL, NAME, Call, by_signature, route, signed
from hub_store import Commit, Entry, Refusal, Repository
from hub_wire import Answer, as_json, part


@route("GET", "/api/agent-harnesses")
def harnesses(call: Call) -> Answer:
    """What the client asks for its telemetry."""
    return as_json({})


@route("GET", "/api/whoami-v2")
def whoami(call: Call) -> Answer:
    """The token's owner and role."""
    role = call.role()
    if role is None:
        raise Refusal(401, "Invalid username or password.")
    orgs = [
        {"type": "org", "name": name, "roleInOrg": "write"} for name in sorted(call.hub.writable - {"me"})
    ]
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    return as_json({"type": "user", "id": "1", "name": "me", "fullname": "Me", "orgs": orgs, "auth": token})


@route("GET", f"{MODEL}/refs")
def refs(call: Call) -> Answer:
    """Branches, tags, pull requests."""
    kinds: dict[str, list[dict[str, str]]] = {"heads": [], "tags": [], "pr": []}
    for ref, commit in call.repository().refs.items():
        _, kind, name = ref.split("/", 2)
        kinds[kind].append({"name": name, "ref": ref, "targetCommit": commit})
    found: dict[str, Any] = {"branches": kinds["heads"], "tags": kinds["tags"], "converts": []}
    if "include_prs" in call.query:
        found["pullRequests"] = kinds["pr"]
    return as_json(found)


def described(entry: Entry, call: Call, *, expand: Commit | None = None) -> dict[str, Any]:
    """A file as the tree lists it."""
    found: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": entry.path}
    if entry.sha256:
        found["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(entry.data)}
        if xet := call.hub.xet.hashes().get(entry.sha256):
            found["xetHash"] = xet
    if expand:
        found["lastCommit"] = {"id": expand.id, "title": expand.title, "date": expand.date}
    return found


@route("GET", rf"{MODEL}/tree/([^/]+)(?:/(.*))?")
def tree(call: Call) -> Answer:
    """The files and folders of a revision, a page at a time."""
    commit, under = call.repository().commit(call.parts[1]), call.parts[2].strip("/")
    deep = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    expand = commit if call.query.get("expand", ["false"])[0].lower() in ("true", "1") else None
    rows: dict[str, dict[str, Any]] = {}
    for path, entry in sorted(commit.tree.items()):
        if under and not path.startswith(f"{under}/"):
            continue
        inner = path[len(under) + 1 :].split("/") if under else path.split("/")
        for depth in range(1, len(inner) if deep else min(2, len(inner))):
            folder = "/".join(([under] if under else []) + inner[:depth])
            oid = hashlib.sha1(f"{commit.id}{folder}".encode()).hexdigest()
            rows.setdefault(folder, {"type": "directory", "oid": oid, "size": 0, "path": folder})
        if deep or len(inner) == 1:
            rows[path] = described(entry, call, expand=expand)
    if under and not rows:
        raise Refusal(404, f"{under} does not exist on {call.parts[1]}", "EntryNotFound")
    start = int(call.query.get("cursor", ["0"])[0])
    shown, headers = list(rows.values())[start : start + call.hub.page], {}
    if start + call.hub.page < len(rows):
        plain, _, query = call.request.path.partition("?")
        kept = [one for one in query.split("&") if one and not one.startswith("cursor=")]
        address = f"{call.hub.endpoint}{plain}?{'&'.join([*kept, f'cursor={start + call.hub.page}'])}"
        headers["Link"] = f'<{address}>; rel="next"'
    return as_json(shown, headers=headers)


@route("GET", rf"{MODEL}/commits/([^/]+)")
def commits(call: Call) -> Answer:
    """A revision's history."""
    rows = [
        {"id": c.id, "title": c.title, "message": c.description, "date": c.date, "authors": [{"user": "me"}]}
        for c in call.repository().log(call.parts[1])
    ]
    return as_json(rows)


@route("POST", rf"{MODEL}/paths-info/([^/]+)")
def paths_info(call: Call) -> Answer:
    """What is known of some paths; those that aren't there are left out."""
    kind = call.request.headers.get("content-type", "")
    asked = call.json()["paths"] if "json" in kind else parse_qs(call.body.decode())["paths"]
    commit = call.repository().commit(call.parts[1])
    rows: list[dict[str, Any]] = []
    for path in asked:
        if path in commit.tree:
            rows.append(described(commit.tree[path], call))
        elif any(one.startswith(f"{path.rstrip('/')}/") for one in commit.tree):
            rows.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path})
    return as_json(rows)


@route("GET", rf"{MODEL}/xet-(read|write)-token/([^/]+)")
def xet_token(call: Call) -> Answer:
    """Where the chunks of large files are kept, and a token for that."""
    held = call.repository() if call.parts[1] == "write" else readable(call)
    if call.parts[1] == "write":
        call.may_write(
            held.id, pull_request="create_pr" in call.query or call.parts[2].startswith("refs/pr/")
        )
    named = {
        "X-Xet-Cas-Url": call.hub.xet.url,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": "4102444800",
    }
    return as_json({"casUrl": call.hub.xet.url, "accessToken": "xet", "exp": 4102444800}, headers=named)


@route("GET", rf"{MODEL}/auth-check")
def auth_check(call: Call) -> Answer:
    """Whether who asks may read."""
    readable(call)
    return as_json({})


@route("GET", rf"{MODEL}/revision/([^/]+)")
def revision(call: Call) -> Answer:
    """A model's description at a revision."""
    held = call.repository()
    commit = held.commit(call.parts[1] if len(call.parts) > 1 else "main")
    siblings = []
    for path, entry in sorted(commit.tree.items()):
        row: dict[str, Any] = {"rfilename": path}
        if "blobs" in call.query:
            full = described(entry, call)
            row |= {"size": entry.size, "blobId": entry.oid}
            if entry.sha256:
                row["lfs"] = {
                    "sha256": entry.sha256,
                    "size": entry.size,
                    "pointerSize": full["lfs"]["pointerSize"],
                }
        siblings.append(row)
    shown = {
        "id": held.id,
        "modelId": held.id,
        "sha": commit.id,
        "private": held.private,
        "siblings": siblings,
    }
    gate: dict[str, Any] = {
        "gated": "manual" if held.gated else False,
        "disabled": False,
        "lastModified": commit.date,
        "tags": [],
    }
    return as_json({**shown, **gate, **_metadata(commit), "author": held.id.split("/")[0]})


def _metadata(commit: Commit) -> dict[str, Any]:
    """What stands between the card's first two lines of dashes."""
    card = commit.tree.get("README.md")
    found = None if card is None else re.match(rb"---\n(.*?)\n---", card.data, re.DOTALL)
    return {} if found is None else {"cardData": yaml.safe_load(found[1])}


def readable(call: Call) -> Repository:
    """The repository, if who asks may have its files."""
    held = call.repository()
    if held.gated and (call.role() is None or held.id not in call.hub.granted):
        who = "must be authenticated" if call.role() is None else "are not in the authorized list"
        said = f"Access to model {held.id} is restricted and you {who}. Visit {call.hub.endpoint}/{held.id}"
        raise Refusal(403, f"{said} to ask for access.", "GatedRepo")
    return held


@route("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)")
@route("GET HEAD", rf"/api/resolve-cache/models/{NAME}/([0-9a-f]{{40}})/(.+)")
def resolve(call: Call) -> Answer:
    """A file: small ones themselves, large ones at the storage's signed address."""
    commit, path = readable(call).commit(call.parts[1]), call.parts[2]
    entry = commit.tree.get(path)
    headers = {"X-Repo-Commit": commit.id}
    if entry is None:
        told = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return as_json({"error": "Entry not found"}, 404, headers | told)
    if entry.sha256 is None:
        headers["ETag"] = f'"{entry.oid}"'
        if call.hub.cached and "resolve-cache" not in call.request.path:
            address = f"/api/resolve-cache/models/{call.parts[0]}/{commit.id}/{quote(path, safe='')}"
            return Answer(307, b"", {**headers, "Location": address})
        return part(entry.data, call.wanted, headers)
    headers |= {
        "X-Linked-Size": str(entry.size),
        "X-Linked-ETag": f'"{entry.sha256}"',
        "ETag": f'"{entry.oid}"',
    }
    if xet := call.hub.xet.hashes().get(entry.sha256):
        address = f"{call.hub.endpoint}/api/models/{call.parts[0]}/xet-read-token/{commit.id}"
        headers |= {"X-Xet-Hash": xet, "Link": f'<{address}>; rel="xet-auth"'}
    return Answer(302, b"", {**headers, "Location": signed(call.hub, entry.sha256, name=path)})


@route("GET HEAD", "/objects/([0-9a-f]{64})", "storage")
def fetch(call: Call) -> Answer:
    """An object's bytes, or one range of them."""
    by_signature(call)
    data = call.hub.store.objects.get(call.parts[0])
    return Answer(404) if data is None else part(data, call.wanted, {"ETag": f'"{call.parts[0][:32]}"'})


@route("GET", r"/api/models/((?:[^/]+/)?(?!refs$|discussions$|auth-check$)[^/]+)")
def model(call: Call) -> Answer:
    """A model's description at main."""
    return revision(call)
