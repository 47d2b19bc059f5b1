"""A repository on the Hub as it is before a push: its head, its files, its card; and who asks."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rsoup import manifest
from rsoup.errors import AccessError, RsoupError
from rsoup.proof.claims import lone_file
from rsoup.publish.asked import MAIN, Options
from rsoup.publish.parcel import Item
from rsoup.publish.refusals import again, no_permission, status_of
from rsoup.report import card
from rsoup.storage.files import parse_json
from rsoup.storage.target import sidecar

_MAX_MANIFEST: Final = 256_000_000
_READERS: Final = ("read", "god-read")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository: bytes, and the SHA-256 of a large one or git's id of a small one."""

    nbytes: int
    sha256: str | None
    blob_id: str

    def equals(self, item: Item) -> bool:
        """Whether the bytes are the item's."""
        if self.nbytes != item.nbytes:
            return False
        return item.blob_id() == self.blob_id if self.sha256 is None else item.sha256() == self.sha256


@dataclass(frozen=True, slots=True)
class Remote:
    """What is there. `head` is the commit that was looked at; None: the repository is not there.

    `has_branch` is False where the branch that is meant has yet to be made, from main's head. `soup` are the rows of
    the files that the manifest there lists, and its own name, by name.
    """

    repo: str
    head: str | None
    has_branch: bool
    private: bool
    files: Mapping[str, RemoteFile]
    card: str | None = field(default=None, repr=False)
    soup: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


def who(api: Any, repo: str, options: Options) -> str:
    """The name of who pushes, who may write there as far as the Hub says. Raises AccessError E0725."""
    told = again(api.whoami)
    name = str(told.get("name"))
    auth = told.get("auth") if isinstance(told.get("auth"), dict) else {}
    token = auth.get("accessToken") or {}
    if token.get("role") in _READERS:
        raise no_permission(repo, "it is read-only", may_propose=False)
    if options.create_pr or options.is_pull_request:
        return name
    if token.get("role") == "fineGrained" and not _may_write(token.get("fineGrained") or {}):
        raise no_permission(repo, "it is fine-grained, without write access to repositories")
    space = repo.partition("/")[0]
    roles = {str(org.get("name")): org.get("roleInOrg") for org in told.get("orgs") or ()}
    if space.lower() != name.lower() and auth.get("type", "access_token") == "access_token":
        known = {org.lower(): role for org, role in roles.items()}
        if space.lower() not in known:
            raise no_permission(repo, f"{name} is no member of {space}")
        if known[space.lower()] == "read":
            raise no_permission(repo, f"{name} may only read in {space}")
    return name


def _may_write(rights: Mapping[str, Any]) -> bool:
    granted = [str(right) for right in rights.get("global") or ()]
    for scope in rights.get("scoped") or ():
        granted += [str(right) for right in scope.get("permissions") or ()]
    return any(right.startswith("repo.") and right != "repo.content.read" for right in granted)


def look(api: Any, repo: str, options: Options) -> Remote:
    """The repository at the head of the branch that is meant, or of main where that is yet to be made."""
    branch = options.branch
    try:
        info = again(lambda: api.model_info(repo, revision=branch))
        has_branch = True
    except Exception as error:
        name = type(error).__name__
        if name == "RepositoryNotFoundError" or (status_of(error) == 404 and name == "HfHubHTTPError"):
            return Remote(repo, None, branch == MAIN, options.private, {})
        if name != "RevisionNotFoundError" or branch == MAIN or options.is_pull_request:
            raise
        info = again(lambda: api.model_info(repo))
        has_branch = False
    head = str(info.sha)
    files = listed(api, repo, head)
    called = str(getattr(info, "id", None) or repo)  # a renamed repository answers under its new name
    text = _text(api, called, head, card.NAME, files, card.MAX_CARD_BYTES)
    alone = lone_file(files)
    about = manifest.NAME if alone is None else sidecar(alone)
    soup = _subjects(_text(api, called, head, about, files, _MAX_MANIFEST))
    if soup:
        soup[about] = {"name": about}
    return Remote(called, head, has_branch, bool(info.private), files, text, soup)


def listed(api: Any, repo: str, commit: str) -> dict[str, RemoteFile]:
    """Every file of a commit."""
    rows = again(lambda: list(api.list_repo_tree(repo, recursive=True, revision=commit)))
    return {
        row.path: RemoteFile(row.size, None if row.lfs is None else row.lfs.sha256, row.blob_id)
        for row in rows
        if hasattr(row, "blob_id")
    }


def _text(
    api: Any, repo: str, commit: str, name: str, files: Mapping[str, RemoteFile], limit: int
) -> str | None:
    """A small file's text, which goes nowhere but into memory; None where there is none."""
    if name not in files:
        return None
    if files[name].nbytes > limit:
        raise AccessError(
            "E0726",
            f"its {name} is larger than {limit} bytes",
            where=repo,
            hint="remove it, or push to another name",
        )
    with tempfile.TemporaryDirectory(prefix="rsoup-") as folder:
        path = again(lambda: api.hf_hub_download(repo, name, revision=commit, local_dir=folder))
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()


def _subjects(text: str | None) -> dict[str, Mapping[str, Any]]:
    """The files that a published manifest lists; none where it is no manifest."""
    try:
        value = {} if text is None else parse_json(text.encode("utf-8", "surrogateescape"), manifest.NAME)
    except RsoupError:
        return {}
    rows = value.get("subject") if isinstance(value, dict) else None
    return {
        str(row["name"]): row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and isinstance(row.get("name"), str)
    }
