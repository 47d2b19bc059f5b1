"""What the Hub and its client refuse, as errors of rsoup: what happened, what to do, and never a token."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final, TypeVar

from rsoup.errors import AccessError, BusyError, RsoupError, TargetError, UsageError
from rsoup.hub.patience import retry_after
from rsoup.publish.redaction import without_tokens

T = TypeVar("T")

TRIES: Final = 4
_LONGEST_WAIT: Final = 30.0
_TRANSPORT: Final = (
    "httpx",
    "httpcore",
    "httpx2",
    "httpcore2",
    "requests",
    "urllib3",
    "http",
    "h11",
    "ssl",
    "socket",
)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client; None where no answer came."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def is_lost(error: BaseException) -> bool:
    """Whether nobody knows if the request was carried out: the connection broke, or the Hub broke down."""
    status = status_of(error)
    if status is not None:
        return status >= 500
    return type(error).__module__.partition(".")[0] in _TRANSPORT or isinstance(
        error, (ConnectionError, TimeoutError)
    )


def again(call: Callable[[], T], *, tries: int = TRIES) -> T:
    """call(), repeated while the Hub is too busy or the connection breaks; only for what may be done twice."""
    for left in range(tries - 1, -1, -1):
        try:
            return call()
        except Exception as error:
            if not left or not (status_of(error) == 429 or is_lost(error)) or _is_offline(error):
                raise
            time.sleep(wait_of(error, tries - 1 - left))
    raise AssertionError


def wait_of(error: BaseException, tried: int) -> float:
    """Seconds until the next try: what the Hub asks for (Retry-After, also as a date; RateLimit's t), else 0.2 · 4^tried; at most 30."""
    given = getattr(getattr(error, "response", None), "headers", None) or {}
    headers = {str(name).title(): str(value) for name, value in given.items()}
    wait = retry_after(headers, time.time())
    if wait is None:
        rate = re.search(r"\bt=([0-9]+(?:\.[0-9]+)?)", headers.get("Ratelimit", ""))
        wait = float(rate[1]) if rate else 0.2 * 4**tried
    return min(wait, _LONGEST_WAIT)


def _is_offline(error: BaseException) -> bool:
    return type(error).__name__ in ("OfflineModeIsEnabled", "OfflineAdapterError")


def translated(error: Exception, repo: str) -> RsoupError:
    """The error of rsoup for an exception of the client's; re-raises what is nobody's but ours."""
    name, status = type(error).__name__, status_of(error)
    words = without_tokens(getattr(error, "server_message", None) or str(error))
    if isinstance(error, RsoupError):
        return error
    if name == "LocalTokenNotFoundError":
        return no_token()
    if status == 401 and name != "RepositoryNotFoundError":
        return AccessError("E0724", "the Hub does not accept the token", hint="log in again: hf auth login (HF_TOKEN comes first, where it is set)")  # fmt: skip
    if status == 403:
        return no_permission(repo, words)
    if name == "RepositoryNotFoundError":
        return AccessError("E0726", "there is no such repository, or you may not see it", where=repo, hint="check the name; hf auth whoami says who you are")  # fmt: skip
    if name in ("RevisionNotFoundError", "EntryNotFoundError", "RemoteEntryNotFoundError"):
        return AccessError(
            "E0726", "it is not there", where=f"{repo}: {words}", hint="check the name of the branch"
        )
    if status in (409, 412):
        return BusyError("E7511", "somebody else changed the repository meanwhile; nothing was published", where=repo, hint="look at it, then type the same again")  # fmt: skip
    if status == 429:
        return BusyError("E7511", "the Hub takes no more requests for now", where=repo, hint="type the same again in a few minutes")  # fmt: skip
    if _is_offline(error):
        return AccessError("E0726", "the Hub is switched off", hint="unset HF_HUB_OFFLINE")
    if name == "HFValidationError":
        return UsageError("E0720", words, hint="a user or an organisation, and a name: me/soup")
    if status is not None and status < 500:
        return refused(words, repo)
    if status is not None or is_lost(error) or isinstance(error, OSError):
        return AccessError("E0726", f"the Hub cannot be reached: {words}", where=repo, hint="type the same again: what was uploaded is not uploaded twice")  # fmt: skip
    raise error


def no_token() -> AccessError:
    """Nobody is logged in."""
    return AccessError(
        "E0724", "there is no token for the Hub", hint="log in: hf auth login, or set HF_TOKEN"
    )


def no_permission(repo: str, words: str, *, may_propose: bool = True) -> AccessError:
    """The token is good and not for this; with `may_propose` a pull request might do."""
    hint = "use a token with write access: https://huggingface.co/settings/tokens"
    return AccessError(
        "E0725",
        f"the token may not write there: {words}",
        where=repo,
        hint=f"{hint}; or --create-pr" if may_propose else hint,
    )


def refused(words: str, repo: str) -> TargetError:
    """The Hub does not take the content."""
    return TargetError("E0727", f"the Hub refuses it: {words}", where=repo, hint="nothing was published")
