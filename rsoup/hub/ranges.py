"""Bytes of a file on the Hub by range requests: continued where they broke, asked again when the server says so.

The token goes to the Hub's own origin only; where that sends us to a storage host, the request starts afresh.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from rsoup.errors import BusyError, RefusedFileError
from rsoup.hub.patience import BUSY, TRIES, pause, retry_after
from rsoup.hub.refusals import answered, endpoint
from rsoup.remote.halting import Halt

_TIMEOUT: Final = 30.0
_REDIRECTS: Final = 5
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")
_EXPIRED: Final = (400, 401, 403, 404, 410)

Problem = tuple[str, float | None]
"""What went wrong, and in how many seconds the server wants to be asked again, if it says so."""


class Ranges:
    """Parts of the file of `nbytes` bytes at `url`, for any number of threads. `where` is what to call it.

    Where the Hub sends us to a storage host, that address is asked from then on, until it expires.
    """

    def __init__(self, url: str, nbytes: int, where: str) -> None:
        self._url, self._nbytes, self._where = url, nbytes, where
        self._there: str | None = None

    def fetch(self, start: int, buffer: memoryview, halt: Halt) -> None:
        """Fill `buffer` from byte `start` on; HaltedError as soon as `halt` is set.

        Raises BusyError E7510 when it does not work five times, RefusedFileError E0718 for answers that are no part of
        such a file, and what `answered` says of refusals.
        """
        done = failures = 0
        while done < len(buffer):
            got, problem = self._attempt(start + done, buffer[done:], halt)
            done += got
            if problem is None:
                continue
            failures = 1 if got else failures + 1
            if failures >= TRIES:
                raise BusyError("E7510", f"the Hub does not deliver: {problem[0]}", where=self._where,
                                hint="run the same command again later")  # fmt: skip
            halt.wait(pause(failures, problem[1]))

    def _attempt(self, start: int, buffer: memoryview, halt: Halt) -> tuple[int, Problem | None]:
        """(bytes that came, what went wrong, or None)."""
        import httpx2

        end = start + len(buffer) - 1
        got = 0
        try:
            with self._asked(f"bytes={start}-{end}", halt) as response:
                if response is None:
                    return 0, ("its storage refuses the address the Hub gave", 0.0)
                if response.status_code in BUSY:
                    return 0, (
                        f"it answers {response.status_code}",
                        retry_after(response.headers, time.time()),
                    )
                if response.status_code >= 400:
                    raise _refused(response, self._where)
                skip = _skipped(response, start, end, self._nbytes, self._where)
                for piece in response.iter_raw():
                    halt.check()
                    if got == len(buffer):  # a body that ends here leaves its connection usable
                        break
                    view = memoryview(piece)
                    cut = min(skip, len(view))
                    skip -= cut
                    view = view[cut:][: len(buffer) - got]
                    buffer[got : got + len(view)] = view
                    got += len(view)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            halt.check()
            return got, (type(error).__name__, None)
        return got, None if got == len(buffer) else ("the connection ended too early", None)

    @contextlib.contextmanager
    def _asked(self, span: str, halt: Halt) -> Iterator[Any]:
        """The answer as a stream, redirects followed; the token stays with the Hub's origin. None: ask again."""
        from huggingface_hub import utils

        client: Any = utils
        headers = {**client.build_hf_headers(), "Range": span, "Accept-Encoding": "identity"}
        session = client.get_session()
        url = self._there or self._url
        for _ in range(_REDIRECTS):
            halt.check()
            if _origin(url) != _origin(endpoint()):
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            asked = session.build_request("GET", url, headers=headers, timeout=_TIMEOUT)
            response = session.send(asked, stream=True, follow_redirects=False)
            if not 300 <= response.status_code < 400 or "Location" not in response.headers:
                with _Closing(response), halt.breaking(lambda: _shut(response)):  # noqa: B023 - left at once
                    stored = _origin(url) != _origin(endpoint())
                    if stored and response.status_code in _EXPIRED:
                        self._there = None
                        yield None
                        return
                    if stored and response.status_code == 206:
                        self._there = url
                    yield response
                return
            response.close()
            url = urljoin(url, response.headers["Location"])
        raise BusyError("E7510", "the Hub sends us round in circles", hint="run the same command again later")


def _shut(response: Any) -> None:
    """Let whoever reads this answer find its connection ended."""
    found = response.extensions["network_stream"].get_extra_info("socket")
    if isinstance(found, socket.socket):
        found.shutdown(socket.SHUT_RDWR)


class _Closing:
    """A response that is closed at the end of a block."""

    def __init__(self, response: Any) -> None:
        self.response = response

    def __enter__(self) -> Any:
        return self.response

    def __exit__(self, *_: object) -> None:
        self.response.close()


def _origin(url: str) -> tuple[str, str | None, int | None]:
    found = urlsplit(url)
    return found.scheme, found.hostname, found.port


def _skipped(response: Any, start: int, end: int, nbytes: int, where: str) -> int:
    """Bytes of the body before the wanted ones: 0, or `start` where the range was ignored. E0718 for other answers."""
    kind = response.headers.get("Content-Type", "")
    encoded = response.headers.get("Content-Encoding", "identity")
    if encoded != "identity":
        raise _strange("it is compressed although it must not be", where)
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != start or int(found[2]) > end:
            raise _strange("it is another part of the file than was asked for", where)
        if found[3] not in ("*", str(nbytes)):
            raise _strange(f"the file has {found[3]} bytes there, {nbytes} in the Hub's list", where)
        return 0
    length = response.headers.get("Content-Length")
    if (
        response.status_code != 200
        or kind.startswith("text/html")
        or (length is not None and length != str(nbytes))
    ):
        raise _strange("a page instead of a part of the file: a proxy's?", where)
    return start


def _strange(what: str, where: str) -> RefusedFileError:
    return RefusedFileError("E0718", f"an answer that cannot be used: {what}", where=where,
                            hint="a proxy between here and the Hub? try another network, or hf download")  # fmt: skip


def _refused(response: Any, where: str) -> Exception:
    from huggingface_hub import utils
    from huggingface_hub.errors import HfHubHTTPError

    client: Any = utils
    response.read()
    try:
        client.hf_raise_for_status(response)
    except HfHubHTTPError as error:
        return answered(error, where)
    return _strange(f"status {response.status_code}", where)
