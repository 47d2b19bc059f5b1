"""When to ask a busy server again: as long as it says, capped, else longer and longer with jitter; five times at most."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

from rsoup.hub.refusals import answered

TRIES: Final = 5
LONGEST_WAIT: Final = 60.0
BUSY: Final = (429, 500, 502, 503, 504)
Found = TypeVar("Found")


def pause(failures: int, hint: float | None) -> float:
    """Seconds to wait after so many failures in a row: the server's hint, at most a minute, else 1, 2, 4, 8 with jitter."""
    if hint is not None:
        return min(hint, LONGEST_WAIT) + random.uniform(0, 0.25)  # noqa: S311 - no secret
    return float(min(2 ** (failures - 1), 8)) * random.uniform(0.5, 1.0)  # noqa: S311


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a Retry-After header (seconds or a date) asks for; None without one that can be read."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now) if text else None
    except (ValueError, TypeError, OverflowError):
        return None


def patient(question: Callable[[], Found], where: str) -> Found:
    """The answer to a question that changes nothing, asked again while the Hub is busy.

    Raises BusyError E7510 after five refusals, and the AccessError for what the Hub does not answer; offline mode
    and a network that is not there pass through as the client raises them.
    """
    from huggingface_hub.errors import HfHubHTTPError

    for failures in range(1, TRIES + 1):
        try:
            return question()
        except HfHubHTTPError as error:
            if error.response.status_code not in BUSY or failures == TRIES:
                raise answered(error, where) from None
            hint = retry_after(error.response.headers, time.time())
        time.sleep(pause(failures, hint))
    raise AssertionError
