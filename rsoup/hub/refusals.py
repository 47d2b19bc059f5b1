"""What went wrong at the Hub → one line what, one line what to do. No token and no local path gets in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rsoup.errors import AccessError, BusyError, RsoupError, TargetError, show

_AGAIN: Final = "run the same command again later: whole files that were downloaded are kept"
_LOGIN: Final = "hf auth login, or set HF_TOKEN"


@contextmanager
def explained(repo: str, what: str | None = None) -> Iterator[None]:
    """Errors of the Hub's client and of the network, inside, as errors of rsoup about `repo` (`what` in it).

    Raises AccessError E0711 to E0716 and E0719, BusyError E7510, TargetError E0605.
    """
    from httpx2 import HTTPError
    from huggingface_hub import errors

    where = show(repo if what is None else f"{repo}/{what}")
    try:
        yield
    except RsoupError:
        raise
    except (errors.OfflineModeIsEnabled, errors.RevisionResolutionError) as error:
        raise _unreachable(error, where) from None
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__
        raise (answered(cause, where) if _answer(cause) else _unreachable(error, where)) from None
    except (errors.HfHubHTTPError, HTTPError) as error:
        raise answered(error, where) from None
    except OSError as error:
        raise TargetError(
            "E0605",
            f"the Hub's cache cannot be written: {show(error.strerror or type(error).__name__)}",
            where=where,
            hint="make room, or set HF_HOME to a folder that has some",
        ) from None


def _answer(error: BaseException | None) -> int | None:
    """The status of the Hub's answer; None where none came."""
    return getattr(getattr(error, "response", None), "status_code", None)


def answered(error: BaseException | None, where: str) -> RsoupError:
    """The error for what the Hub answered, or for its silence."""
    from huggingface_hub import errors

    status = _answer(error)
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint()}/{'/'.join(where.partition('@')[0].split('/')[:2])}"
        return AccessError("E0711", "this model is gated: its owner wants its terms accepted", where=where,
                           hint=f"accept them at {page}, then {_LOGIN}")  # fmt: skip
    if isinstance(error, errors.RevisionNotFoundError):
        return AccessError("E0713", "the model has no such revision", where=where,
                           hint="a branch, a tag or a commit of it: org/name@main")  # fmt: skip
    if isinstance(error, errors.EntryNotFoundError):
        return AccessError("E0714", "the model has no such file or folder", where=where)
    if status == 401 and has_token() and "credentials" in str(_message(error)).lower():
        return rejected(where)
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return not_found(where)
    if isinstance(error, errors.DisabledRepoError) or status == 403:
        return AccessError("E0715", "the Hub does not let this token read it", where=where,
                           hint="a token with read access to this model: hf auth login")  # fmt: skip
    if status == 429 or (status is not None and status >= 500):
        what = "too many requests" if status == 429 else f"it answers {status}"
        return BusyError("E7510", f"the Hub cannot serve this now: {what}", where=where, hint=_AGAIN)
    if status is not None:
        return AccessError("E0719", f"the Hub answers {status} to a simple question", where=where,
                           hint="is HF_ENDPOINT the Hub, and no proxy between?")  # fmt: skip
    return _unreachable(error, where)


def _message(error: BaseException | None) -> object:
    headers = getattr(getattr(error, "response", None), "headers", {})
    return headers.get("X-Error-Message", "")


def rejected(where: str) -> AccessError:
    """The error for a token that the Hub does not know."""
    return AccessError("E0712", "the Hub rejects the token: expired, revoked or misspelt", where=where,
                       hint="hf auth login; a token in HF_TOKEN goes before the one that is stored")  # fmt: skip


def not_found(where: str) -> AccessError:
    """The error for a model that is not there, or not for whoever asks."""
    seen = "for the owner of the token" if has_token() else "without a token"
    return AccessError("E0701", f"no such file or folder, and no such model on the Hub {seen}", where=where,
                       hint=f"check the spelling; if it is private: {_LOGIN}")  # fmt: skip


def not_kept(where: str) -> RsoupError:
    """The error for what the Hub cannot be asked for now and its cache does not hold."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return _unreachable(None, where)
    return BusyError(
        "E7510",
        "the Hub cannot be reached, and its cache here lacks a part of this",
        where=where,
        hint=_AGAIN,
    )


def _unreachable(error: BaseException | None, where: str) -> RsoupError:
    from huggingface_hub import constants, errors

    if constants.is_offline_mode():
        return AccessError("E0716", "this is not in the Hub's cache, and HF_HUB_OFFLINE forbids the network", where=where,
                           hint="unset HF_HUB_OFFLINE, or download it where there is a network: hf download")  # fmt: skip
    what = "no such file or folder here, and the Hub cannot be reached"
    cause = (
        ""
        if error is None or isinstance(error, errors.RevisionResolutionError)
        else f" ({type(error).__name__})"
    )
    return BusyError("E7510", what + cause, where=where, hint=_AGAIN)


def has_token() -> bool:
    """Whether the Hub's client has a token to send."""
    from huggingface_hub import get_token

    return get_token() is not None


def endpoint() -> str:
    """Where the Hub is, as its client has it."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
