"""What a push is asked for, and what it did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rsoup.errors import UsageError, show

MAIN: Final = "main"
_PART: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?"
_REPO: Final = re.compile(rf"{_PART}/{_PART}")
_REVISION: Final = re.compile(r"(?![-/.])[\w./-]{1,200}(?<![/.])")
_PULL_REQUEST: Final = re.compile(r"refs/pr/[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Options:
    """How a folder is published, as the command's options of the same names say.

    `results` is a sweep's folder or any table of measured points, `point` the one that is published.
    """

    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    commit_message: str | None = None
    license: str | None = None
    results: str | None = None
    point: str | None = None
    overwrite: bool = False
    dry_run: bool = False

    def check(self, repo: str) -> None:
        """Raise UsageError E0720 where the name or the options cannot be meant."""
        if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo or repo.endswith(".git"):
            raise UsageError(
                "E0720", f"'{show(repo)}' is no name of a repository", hint="a user or an organisation, and a name: me/soup"
            )  # fmt: skip
        if self.revision is not None and (not _REVISION.fullmatch(self.revision) or ".." in self.revision):
            raise UsageError(
                "E0720", f"'{show(self.revision)}' is no name of a branch", hint="--revision lambda-0.3"
            )
        if self.create_pr and self.revision not in (None, MAIN):
            raise UsageError(
                "E0720", "a pull request goes to main: --create-pr and --revision contradict each other", hint="leave one out"
            )  # fmt: skip
        if self.point is not None and self.results is None:
            raise UsageError("E0720", "--point names a point of nothing", hint="--results RUN --point NAME")
        if self.commit_message is not None and not self.commit_message.strip():
            raise UsageError("E0720", "the commit message is empty", hint="leave out --commit-message")

    @property
    def branch(self) -> str:
        """Where it goes, or what the pull request is against."""
        return self.revision or MAIN

    @property
    def is_pull_request(self) -> bool:
        """Whether `revision` is a pull request that is open already."""
        return _PULL_REQUEST.fullmatch(self.branch) is not None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was published, or with `dry_run` what would be.

    `url` is where to look: the pull request, or the commit. `added` and `replaced` map file names to bytes;
    `kept` were there already, equal; `deleted` are weight files of another model. `created` says whether the
    repository is new. Without `commit` there was nothing to do, or it is a dry run.
    """

    repo: str
    url: str
    commit: str | None
    pull_request: int | None
    branch: str
    created: bool
    private: bool
    added: Mapping[str, int]
    replaced: Mapping[str, int]
    kept: tuple[str, ...]
    deleted: tuple[str, ...]
    metadata: Mapping[str, object] = field(repr=False)
    notes: tuple[str, ...] = ()
    dry_run: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the files that are sent, before the Hub finds what it has."""
        return sum(self.added.values()) + sum(self.replaced.values())

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to publish."""
        return bool(self.added or self.replaced or self.deleted)
