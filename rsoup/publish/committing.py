"""The one commit: what differs is added, what is stale is deleted, nothing twice, nothing of unknown outcome."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rsoup.errors import BusyError, Problem, TargetError, UsageError, listing, show, show_path
from rsoup.publish.asked import MAIN, Options
from rsoup.publish.parcel import Item, is_weights
from rsoup.publish.refusals import TRIES, again, is_lost, status_of, wait_of
from rsoup.publish.remote import Remote, RemoteFile, listed

_SHOWN: Final = 5
_RECENT: Final = 20


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit does: files that are new, files with other bytes, files that stay, weights that go."""

    added: tuple[Item, ...]
    replaced: tuple[Item, ...]
    kept: tuple[Item, ...]
    deleted: tuple[str, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether the repository is so already."""
        return not (self.added or self.replaced or self.deleted)


def change_of(
    items: Mapping[str, Item],
    files: Mapping[str, RemoteFile],
    soup: Iterable[str] = (),
    stay: Iterable[str] = (),
) -> Change:
    """The difference between what is to be published and what is there; equal bytes are known by their hash.

    Stale files are deleted: weights that are not published, and what the manifest there lists (`soup`) as another
    soup's; other files stay, and so do those that are to (`stay`).
    """
    added, replaced, kept = [], [], []
    for name, item in items.items():
        there = files.get(name)
        if there is None:
            added.append(item)
        elif there.equals(item):
            kept.append(item)
        else:
            replaced.append(item)
    stale = {name for name in files if is_weights(name)} | (set(soup) & set(files))
    deleted = tuple(sorted(stale - set(items) - set(stay)))
    return Change(tuple(added), tuple(replaced), tuple(kept), deleted)


def refuse_overwriting(change: Change, remote: Remote, options: Options) -> None:
    """Raise UsageError E0723 where weights of the repository would be lost; a pull request loses nothing by itself."""
    lost = [
        *filter(is_weights, change.deleted),
        *(item.name for item in change.replaced if is_weights(item.name)),
    ]
    if not lost or options.overwrite or options.create_pr or options.is_pull_request:
        return
    more = () if len(lost) <= _SHOWN else (Problem("", f"and {len(lost) - _SHOWN} more"),)
    rows = (Problem(show_path(n), "deleted" if n in change.deleted else "replaced") for n in lost[:_SHOWN])
    raise UsageError(
        "E0723", f"the repository holds the weights of another model, in {len(lost)} file{'' if len(lost) == 1 else 's'}", where=remote.repo,
        details=(*rows, *more), hint="--overwrite replaces them in the same commit; --create-pr only proposes it",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Landed:
    """A commit that is on the Hub; the number of its pull request if it is in one."""

    commit: str
    pull_request: int | None
    existed: bool = False


def commit(api: Any, remote: Remote, change: Change, options: Options, message: str, name: str) -> Landed:
    """Publish the change as one commit on the head that was looked at, and see that it is there, byte for byte.

    Where the connection breaks before the answer, the repository is asked whether the commit is there; it is
    never made twice. `name` is whose pull requests are looked through. Raises BusyError E7511 where
    somebody else was faster, TargetError E0727 where something would be left out, and the client's exceptions.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = [CommitOperationAdd(item.name, _source(item)) for item in (*change.added, *change.replaced)]
    operations: list[Any] = [*additions, *(CommitOperationDelete(path) for path in change.deleted)]
    expected = {op.path_in_repo: op.upload_info.sha256.hex() for op in additions}
    again(lambda: api.preupload_lfs_files(remote.repo, additions=additions, revision=options.branch, create_pr=options.create_pr, free_memory=False))  # fmt: skip
    _refuse_ignored([op.path_in_repo for op in additions if getattr(op, "_should_ignore", False)], remote)
    tried = 0
    while True:
        try:
            made = api.create_commit(
                remote.repo, operations=operations, commit_message=message, revision=options.branch,
                create_pr=options.create_pr, parent_commit=remote.head,
            )  # fmt: skip
            landed = Landed(str(made.oid), int(made.pr_num) if options.create_pr and made.pr_num else None)
            break
        except Exception as error:
            tried += 1
            if status_of(error) == 412:
                raise _moved(api, remote, options) from None
            busy = status_of(error) == 429
            if not (busy or is_lost(error)):
                raise
            time.sleep(wait_of(error, tried - 1))
            found = None if busy else find(api, remote, change, options, message, name)
            if found is not None:
                landed = found
                break
            if tried >= TRIES:
                raise
            for op in additions:
                op._is_committed = False
    _see(api, remote, change, expected, landed)
    return landed


def _refuse_ignored(names: list[str], remote: Remote) -> None:
    """Raise TargetError E0727 for files that the client would leave out in silence."""
    if names:
        raise TargetError(
            "E0727", f"a .gitignore of the repository hides {listing(names)}; nothing was published", where=remote.repo,
            hint="take the lines out of its .gitignore",
        )  # fmt: skip


def _source(item: Item) -> Any:
    return item.path if item.data is None else io.BytesIO(item.data)


def find(
    api: Any, remote: Remote, change: Change, options: Options, message: str, name: str
) -> Landed | None:
    """The commit or open pull request that makes exactly this change; None where there is none.

    On a branch: its head, if its title is the message. Of pull requests: the newest of this user with the title.
    """
    if not options.create_pr:
        head = again(lambda: api.model_info(remote.repo, revision=options.branch)).sha
        if head == remote.head or head is None:
            return None
        return Landed(str(head), None) if _holds(api, remote.repo, str(head), change) else None
    for number in pull_requests(api, remote.repo, message, name):
        info = again(lambda number=number: api.model_info(remote.repo, revision=f"refs/pr/{number}"))  # type: ignore[misc]
        if info.sha and _holds(api, remote.repo, str(info.sha), change):
            return Landed(str(info.sha), number, existed=True)
    return None


def pull_requests(api: Any, repo: str, title: str, name: str) -> list[int]:
    """Numbers of a user's open pull requests of this title, the newest first."""

    def ask() -> list[Any]:
        return list(
            api.get_repo_discussions(
                repo, author=name, discussion_type="pull_request", discussion_status="open"
            )
        )

    rows = [
        row
        for row in again(ask)
        if row.is_pull_request and row.status in ("open", "draft") and row.title == title
    ]
    return sorted((int(row.num) for row in rows), reverse=True)[:_RECENT]


def _holds(api: Any, repo: str, commit: str, change: Change) -> bool:
    """Whether a commit's files are as after the change."""
    files = listed(api, repo, commit)
    items = (*change.added, *change.replaced, *change.kept)
    return not set(change.deleted) & set(files) and all(
        item.name in files and files[item.name].equals(item) for item in items
    )


def _see(api: Any, remote: Remote, change: Change, expected: Mapping[str, str], landed: Landed) -> None:
    """The published files have the hashes that were computed here. Raises TargetError E0727."""
    files = listed(api, remote.repo, landed.commit)
    wrong = []
    for item in (*change.added, *change.replaced):
        there = files.get(item.name)
        large = there is not None and there.sha256 is not None
        if there is None or (there.sha256 != expected[item.name] if large else not there.equals(item)):
            wrong.append(item.name)
    if wrong:
        raise TargetError(
            "E0727", f"the commit {landed.commit[:10]} does not hold {listing(wrong)} as it is here", where=remote.repo,
            hint="revert the commit, and push again",
        )  # fmt: skip


def _moved(api: Any, remote: Remote, options: Options) -> BusyError:
    """What was committed since the repository was looked at, as an error."""
    details: Sequence[Problem] = ()
    try:
        rows = again(lambda: list(api.list_repo_commits(remote.repo, revision=options.branch)))
        ids = [row.commit_id for row in rows]
        since = rows[: ids.index(remote.head)] if remote.head in ids else rows[:_SHOWN]
        details = tuple(Problem(str(row.commit_id)[:10], show(row.title)) for row in since[:_SHOWN])
    except Exception:  # noqa: S110 - the refusal stands, with or without what is behind it
        pass
    return BusyError(
        "E7511", "somebody else committed meanwhile; nothing was published", where=f"{remote.repo}@{options.branch or MAIN}",
        details=tuple(details), hint="look at it, then type the same again: what was uploaded is not uploaded twice",
    )  # fmt: skip
