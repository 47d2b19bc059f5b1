"""HTTP for the tests' Hub: answers, ranges, the log of requests, and faults on demand."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

PIECE = 1 << 16


@dataclass(slots=True)
class Request:
    """One request as it came: `path` with its query, `headers` in lower case; then what was answered."""

    method: str
    host: str  # "endpoint" or "storage"
    path: str
    headers: Mapping[str, str] = field(repr=False)
    status: int = 0
    received: int = 0
    sent: int = 0

    @property
    def range(self) -> str | None:
        """The Range header."""
        return self.headers.get("range")

    @property
    def authorized(self) -> bool:
        """Whether a token came with it."""
        return "authorization" in self.headers

    @property
    def line(self) -> str:
        """What the routes of faults are looked for in: "GET endpoint /api/models/…"."""
        return f"{self.method} {self.host} {self.path}"


@dataclass(slots=True)
class Answer:
    """A status, headers and a body; `first` is the body's offset in the file it is a range of."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    first: int = 0


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass(slots=True)
class Fault:
    """What goes wrong with the requests whose line contains (or matches) `route`, `times` times."""

    route: str | re.Pattern[str]
    times: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    delay: float = 0
    body: bytes | None = None
    flip: int | None = None
    ignore_range: bool = False
    lost: bool = False
    reset: bool = False
    action: Callable[[], object] | None = None

    def meets(self, line: str) -> bool:
        """Whether it is due for a request."""
        named = self.route in line if isinstance(self.route, str) else self.route.search(line) is not None
        return named and self.times > 0


class Site(Protocol):
    """What the handler asks of the Hub."""

    requests: list[Request]
    faults: list[Fault]
    closing: threading.Event
    lock: Any

    def answer(self, request: Request, body: bytes, wanted: str | None) -> Answer:
        """The answer to a request; `wanted` is its range."""


def part(data: bytes, wanted: str | None, headers: Mapping[str, str]) -> Answer:
    """A file's bytes, or the one range of them that is wanted: 200, 206 or 416."""
    shown = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if not found or found.groups() == ("", ""):
        return Answer(200, data, shown)
    low, high = found.groups()
    first = int(low) if low else max(0, len(data) - int(high))
    last = min(int(high), len(data) - 1) if low and high else len(data) - 1
    if first > last:
        return Answer(416, b"", {**shown, "Content-Range": f"bytes */{len(data)}"})
    shown["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Answer(206, data[first : last + 1], shown, first)


class Server(ThreadingHTTPServer):
    """One host of the Hub, on a port of its own; stopping it closes every connection."""

    request_queue_size = 64

    def __init__(self, site: Site, host: str) -> None:
        self.site, self.host = site, host
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        """The port it was given."""
        return int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours; anything else is shown by `Handler`."""

    def stop(self) -> None:
        """Stop listening, end what is open."""
        self.shutdown()
        self.thread.join()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Reads one request after another from a connection and lets the site answer them."""

    protocol_version = "HTTP/1.1"
    server: Server
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the site keeps its own log."""

    def handle_request(self) -> None:
        """The faults that are due, the answer, the faults of the answer."""
        site = self.server.site
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.server.host, self.path, headers)
        with site.lock:
            site.requests.append(request)
            due = next((one for one in site.faults if one.flip is None and one.meets(request.line)), None)
            if due:
                due.times -= 1
        fault = due or Fault("")
        if fault.action:
            fault.action()
        if fault.delay:
            site.closing.wait(fault.delay)
        if fault.reset:
            self.rfile.read(min(fault.cut_after or 0, int(headers.get("content-length", 0))))
            self.hang_up(hard=True)
            return
        body = self.read_body(headers)
        request.received = len(body)
        if fault.status is not None:
            words = fault.body if fault.body is not None else b'{"error":"asked for by the test"}'
            answer = Answer(fault.status, words, {"Content-Type": "application/json"})
        elif fault.body is not None:
            answer = Answer(200, fault.body, {"Content-Type": "text/html"})
        else:
            answer = site.answer(request, body, None if fault.ignore_range else request.range)
            self.flip(request, answer)
        answer.headers.update(fault.headers)
        if fault.lost:
            self.hang_up(hard=True)
            return
        self.send(request, answer, fault.cut_after)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def flip(self, request: Request, answer: Answer) -> None:
        """Change the byte at a file's offset, where this answer holds it; only then is the fault used up."""
        site = self.server.site
        with site.lock:
            for fault in site.faults:
                at = -1 if fault.flip is None else fault.flip - answer.first
                if fault.meets(request.line) and answer.status in (200, 206) and 0 <= at < len(answer.body):
                    fault.times -= 1
                    answer.body = answer.body[:at] + bytes([answer.body[at] ^ 1]) + answer.body[at + 1 :]

    def read_body(self, headers: Mapping[str, str]) -> bytes:
        """The whole body, of a stated length or in chunks."""
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def send(self, request: Request, answer: Answer, cut_after: int | None) -> None:
        """The answer, or the part of it before the connection breaks."""
        request.status = answer.status
        if "Content-Length" in answer.headers:  # a wrong one: the connection can't go on
            self.close_connection = True
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        body = b"" if self.command == "HEAD" else memoryview(answer.body)[:cut_after]
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            request.sent += len(piece)
            self.wfile.write(piece)
        if cut_after is not None:
            self.wfile.flush()
            self.hang_up()

    def hang_up(self, *, hard: bool = False) -> None:
        """End the connection: in order, or as a broken one (reset)."""
        self.close_connection = True
        if hard:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_WR)
