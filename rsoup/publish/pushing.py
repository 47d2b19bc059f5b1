"""push(folder, repo): a soup or any checkpoint on the Hub, as one reviewable commit."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import rsoup
from rsoup.errors import BusyError, RsoupError, UsageError, listing
from rsoup.measured.table import read_table
from rsoup.progress import OnProgress
from rsoup.proof.located import FETCHED
from rsoup.publish import remote as hub
from rsoup.publish.asked import MAIN, Options, Pushed
from rsoup.publish.committing import Change, Landed, change_of, commit, find, refuse_overwriting
from rsoup.publish.parcel import Parcel, is_weights, pack, private_findings
from rsoup.publish.publication import Publication, publication
from rsoup.publish.redaction import Private, findings, refuse, without_tokens
from rsoup.publish.refusals import again, no_token, refused, status_of, translated
from rsoup.publish.results import Results, foreign_results, point_of
from rsoup.report import card
from rsoup.report.heritage import Card, licence_of, stated
from rsoup.storage.files import parse_json

LIBRARY: Final = "rsoup"
_LONGEST_TITLE: Final = 100
_MOST_BASES: Final = 8
_NOT_SHOWN: Final = (401, 403, 404)
EVALUATIONS: Final = ".eval_results/"


def push(
    folder: str | os.PathLike[str],
    repo: str,
    options: Options = Options(),  # noqa: B008 - frozen
    *,
    progress: OnProgress | None = None,
    bars: bool = False,
) -> Pushed:
    """Publish `folder` as `repo` on the Hub in one commit that holds every file of it; what is equal is not sent.

    Before anything is uploaded the folder is proven complete, searched for what is private, its card is checked
    by the Hub's own rules, and the token's right to write is looked up. With `options.dry_run` nothing is
    written anywhere. `bars` lets the client draw its progress.

    Raises UsageError E0720 (names, options), E0721 (licence), E0722 (something private), E0723 (other weights
    there); MismatchError E0901 and RefusedFileError (the folder); AccessError E0724 (no token), E0725 (no right to
    write), E0726 (not there, not reachable); TargetError E0727 (the Hub refuses the content); BusyError E7511.
    """
    options.check(repo)
    path = os.fspath(folder)
    parcel = pack(path, progress=progress)
    results = _results(parcel, options)
    private = Private.here()
    beside = [
        item for item in parcel.items.values() if item.name != card.NAME
    ]  # the card: as it is published
    refuse([*private_findings(beside, private), *findings("the commit message", options.commit_message or "", private)])  # fmt: skip
    with _client(bars) as api, _explained(repo):
        return _push(api, parcel, repo, options, results, private)


def check(repo: str, options: Options = Options()) -> None:  # noqa: B008 - frozen
    """Nothing if a push to `repo` may be tried: to be asked before hours of work, and free of effects.

    The name, the options, the token and its right to write, the repository and its branch. Raises what `push` raises of these.
    """
    options.check(repo)
    with _client(bars=False) as api, _explained(repo):
        hub.who(api, repo, options)
        _check_remote(hub.look(api, repo, options), repo, options)


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Exceptions of the client as errors of rsoup; their causes, which may hold a header, are cut off."""
    try:
        yield
    except RsoupError:
        raise
    except Exception as error:
        raise translated(error, repo) from None


def _check_remote(remote: hub.Remote, repo: str, options: Options) -> None:
    if remote.head is None and (options.create_pr or options.is_pull_request):
        raise UsageError("E0720", f"there is no {repo} to which a pull request could go", hint="leave out --create-pr: a new repository is made")  # fmt: skip
    if options.private and remote.head is not None and not remote.private:
        raise UsageError("E0720", f"{remote.repo} is there, and public: --private cannot be meant", hint="another name, or make it private on its page")  # fmt: skip


@contextlib.contextmanager
def _client(bars: bool) -> Iterator[Any]:
    """The Hub's client, its warnings and log kept from the terminal."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if get_token() is None:
        raise no_token()
    log, drawn = logging.getLogger("huggingface_hub"), not are_progress_bars_disabled()
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL)
        if not bars:
            disable_progress_bars()
        try:
            yield HfApi(library_name=LIBRARY, library_version=rsoup.__version__)
        finally:
            log.setLevel(level)
            if drawn:
                enable_progress_bars()


def _results(parcel: Parcel, options: Options) -> Results | None:
    if options.results is None:
        return None
    table = read_table(options.results)
    return point_of(table, None if parcel.claims is None else parcel.claims.canonical, options.point)


def _push(
    api: Any, parcel: Parcel, repo: str, options: Options, results: Results | None, private: Private
) -> Pushed:
    name = hub.who(api, repo, options)
    remote = hub.look(api, repo, options)
    _check_remote(remote, repo, options)
    made = publication(
        parcel, remote.repo, remote_card=remote.card, remote_soup=remote.soup, results=results, license_=options.license,
        base_cards=_base_cards(api, parcel, options),
    )  # fmt: skip
    _check_card(made, remote, private)
    change = change_of(made.items, remote.files, remote.soup, made.stay)
    refuse_overwriting(change, remote, options)
    message = options.commit_message or _title(parcel)
    notes = [*made.notes, *_notes(parcel), *_of_others(parcel, change, remote, made.stay)]
    if remote.repo != repo:
        notes.append(f"{repo} is called {remote.repo} now")
    landed = None
    if change.is_nothing and remote.has_branch:
        notes.append("everything is there already: nothing to do")
    elif not options.dry_run:
        landed = _land(api, remote, change, options, message, name)
        if landed.existed:
            notes.append("it was there already: the answer to an earlier push, or an equal pull request")
    return _pushed(api, remote, change, made, options, landed, notes)


def _land(api: Any, remote: hub.Remote, change: Change, options: Options, message: str, name: str) -> Landed:
    """Make what is missing, then the commit; an open pull request with the same change is that commit."""
    repo = remote.repo
    if remote.head is None:
        again(lambda: api.create_repo(repo, private=options.private or None, exist_ok=True))
        fresh = hub.look(api, repo, Options(revision=MAIN))
        if any(name != ".gitattributes" for name in fresh.files):
            raise BusyError("E7511", "somebody else made the repository meanwhile; nothing was published", where=repo, hint="look at it, then type the same again")  # fmt: skip
        remote = replace(fresh, has_branch=options.branch == MAIN)
    if options.create_pr and (found := find(api, remote, change, options, message, name)) is not None:
        return found
    if not remote.has_branch:
        again(lambda: api.create_branch(repo, branch=options.branch, revision=remote.head, exist_ok=True))
    if change.is_nothing:
        return Landed(str(remote.head), None)
    return commit(api, remote, change, options, message, name)


def _base_cards(api: Any, parcel: Parcel, options: Options) -> dict[str, Card]:
    """The metadata of the base models' cards on the Hub, asked for only where the ingredients' cards name no licence."""
    from huggingface_hub.errors import HfHubHTTPError

    local = card.split(parcel.card or "")[0]
    if options.license is not None or licence_of(local) is not None:
        return {}
    found: dict[str, Card] = {}
    for base in stated(local)[:_MOST_BASES]:
        try:
            about = again(lambda base=base: api.model_info(base)).card_data  # type: ignore[misc]
        except HfHubHTTPError as error:
            if status_of(error) not in _NOT_SHOWN:
                raise
            continue  # a base that this token may not look at has no licence that is known
        if about is not None:
            found[base] = about.to_dict()
    return found


def _check_card(made: Publication, remote: hub.Remote, private: Private) -> None:
    """The card by our own rules and by the Hub's, before anything is uploaded. Raises E0722, TargetError E0727."""
    from huggingface_hub import ModelCard

    texts = [item for item in made.items.values() if item.data is not None and item.name != card.NAME]
    found = private_findings(texts, private)
    text = None
    if card.NAME in made.items:
        text = (made.items[card.NAME].data or b"").decode("utf-8", "replace")
        known = set((remote.card or "").splitlines())  # it is published already, by whoever wrote it
        found += findings(
            card.NAME, "\n".join("" if line in known else line for line in text.splitlines()), private
        )
    refuse(found)
    if text is None:
        return
    try:
        parsed = ModelCard(text, ignore_metadata_errors=False)
        again(lambda: parsed.validate(repo_type="model"))
    except (ValueError, KeyError, TypeError) as error:
        raise refused(f"its card: {without_tokens(_told(error))}", remote.repo) from None


def _told(error: Exception) -> str:
    """What the Hub says of a card, out of its JSON."""
    try:
        value = parse_json(str(error).encode(), "the answer")
    except RsoupError:
        return str(error)
    rows = value.get("errors") if isinstance(value, dict) else None
    words = [str(row.get("message")) for row in rows or () if isinstance(row, dict)]
    return "; ".join(words) or str(error)


def _title(parcel: Parcel) -> str:
    """The commit's title where none is given: what it is, with its λ."""
    if parcel.claims is None:
        return "Upload with rsoup"
    shares = [str(one["lambda"]) for one in parcel.claims.canonical["ingredients"]]
    text = f"Soup with λ = {', '.join(shares)}"
    return text if len(text) <= _LONGEST_TITLE else f"Soup of {len(shares)} ingredients"


def _notes(parcel: Parcel) -> list[str]:
    if parcel.claims is None:
        return ["there is no rsoup.json: that the files are complete and unchanged could not be proven"]
    return []


def _of_others(parcel: Parcel, change: Change, remote: hub.Remote, stay: Sequence[str]) -> list[str]:
    """Notes on what stays in the repository and is not the soup's: files, and results of the weights that were there."""
    notes = []
    if any(map(is_weights, (*change.deleted, *(item.name for item in change.replaced)))):
        results = sum(name.startswith(EVALUATIONS) for name in remote.files)
        if results:
            notes.append(f"{results} of its files are results of the weights that were there: {EVALUATIONS}")
        if foreign_results(card.split(remote.card or "")[0].get("model-index")):
            notes.append(
                "the card keeps results by others, which are of the weights that were there: model-index"
            )
    published = {item.name for item in (*change.added, *change.replaced, *change.kept)}
    others = sorted(set(remote.files) - published - {*change.deleted, *stay, *FETCHED})
    if parcel.claims is not None and others:
        notes.append(
            f"{listing(others, 3)} {'is' if len(others) == 1 else 'are'} not of this soup, and rsoup verify will say so"
        )
    return notes


def _pushed(
    api: Any,
    remote: hub.Remote,
    change: Change,
    made: Publication,
    options: Options,
    landed: Landed | None,
    notes: list[str],
) -> Pushed:
    page = f"{api.endpoint}/{remote.repo}"
    url = page if options.branch == MAIN else f"{page}/tree/{options.branch}"
    if landed is not None:
        number = landed.pull_request
        url = f"{page}/discussions/{number}" if number is not None else f"{page}/commit/{landed.commit}"
    return Pushed(
        repo=remote.repo,
        url=url,
        commit=None if landed is None else landed.commit,
        pull_request=None if landed is None else landed.pull_request,
        branch=options.branch,
        created=remote.head is None,
        private=options.private if remote.head is None else remote.private,
        added={item.name: item.nbytes for item in change.added},
        replaced={item.name: item.nbytes for item in change.replaced},
        kept=tuple(item.name for item in change.kept),
        deleted=change.deleted,
        metadata=made.metadata,
        notes=tuple(notes),
        dry_run=options.dry_run,
    )
