"""`--push`: the soup that was just made goes to the Hub; whether it may is asked before the work begins."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rsoup.console import Console
from rsoup.errors import RsoupError, UsageError, show
from rsoup.hub.commit import snapshot_path
from rsoup.recipe import Recipe
from rsoup.report import card
from rsoup.report.heritage import Card, licences_of

if TYPE_CHECKING:
    from rsoup.publish.asked import Options


@dataclass(frozen=True, slots=True)
class Publish:
    """Where a soup is published, and how."""

    repo: str
    options: Options

    def check(self) -> None:
        """Name, token, right to write, before hours of work. Raises UsageError E0720, AccessError E0724 to E0726."""
        from rsoup.publish.pushing import check

        check(self.repo, self.options)

    def check_licences(self, recipe: Recipe) -> None:
        """Raise UsageError E0721, before hours of work, where the checkpoints' cards differ in their licence."""
        if self.options.license or recipe.license:
            return
        found = licences_of(_card_at(uri) for _, uri in recipe.checkpoints())
        if len(found) > 1:
            from rsoup.publish.publication import differ

            raise differ("the ingredients' licences differ", found)

    def publish(
        self, out: str, license_: str | None, console: Console
    ) -> tuple[list[str], dict[str, object]]:
        """(lines to show, the same as data). What `push` raises; a soup that is made stays, and the user is told."""
        from rsoup.cli.push import as_json, text
        from rsoup.publish.pushing import push

        bars = (
            not (console.quiet or console.as_json)
            and console.err.isatty()
            and os.environ.get("TERM") != "dumb"
        )
        try:
            done = push(
                out, self.repo, replace(self.options, license=self.options.license or license_), bars=bars
            )
        except RsoupError:
            console.talk(
                f"the soup is complete: {show(out)}; to publish it: rsoup push {show(out)} {show(self.repo)}"
            )
            raise
        for note in done.notes:
            console.note(note)
        return text(done).splitlines(), dict(as_json(done))


def _card_at(uri: str) -> Card:
    """The metadata of the card in a checkpoint's folder, or in the Hub's cache; empty where there is none to be read."""
    try:
        with open(os.path.join(snapshot_path(uri), card.NAME), encoding="utf-8", errors="replace") as file:
            return card.split(file.read(card.MAX_CARD_BYTES))[0]
    except OSError:
        return card.NO_CARD


def publish_of(
    repo: str | None,
    *,
    private: bool,
    create_pr: bool,
    revision: str | None,
    message: str | None,
    overwrite: bool,
) -> Publish | None:
    """What --push and its options ask for; None without it. Raises UsageError E0720 for its options alone."""
    if repo is None:
        if private or create_pr or revision is not None or message is not None:
            raise UsageError(
                "E0720", "--private, --create-pr, --revision and --commit-message say how to publish",
                hint="--push org/name says where",
            )  # fmt: skip
        return None
    from rsoup.publish.asked import Options

    options = Options(
        private=private, create_pr=create_pr, revision=revision, commit_message=message, overwrite=overwrite
    )
    return Publish(repo, options)
