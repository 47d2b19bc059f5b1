"""How a request finds the function that answers it, and who may do what, for the tests' Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from hub_store import Refusal, Repository
from hub_wire import Answer, Request

if TYPE_CHECKING:
    from hub_server import Hub

NAME = r"((?:[^/]+/)?[^/]+)"
MODEL = rf"/api/models/{NAME}"


@dataclass(slots=True)
class Call:
    """One request as a route sees it: `parts` are the unquoted groups of its pattern."""

    hub: Hub
    request: Request
    body: bytes
    wanted: str | None
    parts: list[str] = field(default_factory=list)

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's values."""
        return parse_qs(urlsplit(self.request.path).query, keep_blank_values=True)

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body or b"null")

    def role(self) -> str | None:
        """What the token allows, None without one; a token nobody has is refused."""
        given = self.request.headers.get("authorization")
        if given is None:
            return None
        role = {"Bearer hf_write": "write", "Bearer hf_read": "read"}.get(given)
        if role is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return role

    def repository(self) -> Repository:
        """The repository named first, if who asks may see it; a moved one redirects."""
        role, name = self.role(), self.parts[0]
        held = self.hub.store.repositories.get(name)
        if held is None and name in self.hub.store.moved:
            raise Moved(self.request.path.replace(name, self.hub.store.moved[name], 1))
        if held is None or (held.private and role is None):
            if role is None:
                raise Refusal(self.hub.stranger, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return held

    def may_write(self, name: str, *, pull_request: bool = False) -> None:
        """Refuse who has no right to write there; pull requests are open to everyone with a write token."""
        role = self.role()
        if role is None:
            raise Refusal(401, "Invalid username or password.")
        if role != "write":
            raise Refusal(403, "Forbidden: this token is read-only; you need a token with write access")
        if not pull_request and name.split("/", maxsplit=1)[0] not in self.hub.writable:
            raise Refusal(
                403, f'Forbidden: you don\'t have the right to write under "{name.split("/", maxsplit=1)[0]}"'
            )


class Moved(Exception):
    """The repository has another name now."""


Route = Callable[[Call], Answer]
ROUTES: list[tuple[str, str, re.Pattern[str], Route]] = []


def route(methods: str, pattern: str, host: str = "endpoint") -> Callable[[Route], Route]:
    """Register the function that answers; the first that matches does."""

    def keep(serve: Route) -> Route:
        ROUTES.append((methods, host, re.compile(pattern), serve))
        return serve

    return keep


def find(call: Call) -> Route | None:
    """The route of a request, its pattern's groups put into the call."""
    path = urlsplit(call.request.path).path
    for methods, host, pattern, serve in ROUTES:
        found = pattern.fullmatch(path)
        if found and host == call.request.host and call.request.method in methods.split():
            call.parts = [unquote(text or "") for text in found.groups()]
            return lambda call: redirecting(serve, call)
    return None


def redirecting(serve: Route, call: Call) -> Answer:
    """The answer, or where the repository is now."""
    try:
        return serve(call)
    except Moved as moved:
        return Answer(307, b"", {"Location": str(moved)})


def signed(hub: Hub, sha256: str, **more: str | int) -> str:
    """The storage's address of an object, which needs no token."""
    query = "&".join(f"{key}={quote(str(value), safe='')}" for key, value in more.items())
    return f"{hub.storage}/objects/{sha256}?signature={hub.signature}&{query}"


def by_signature(call: Call) -> None:
    """A storage takes a signed address, and a token beside it is an error there."""
    if call.request.authorized:
        raise Refusal(400, "Only one auth mechanism allowed")
    if call.query.get("signature") != [call.hub.signature]:
        raise Refusal(403, "SignatureDoesNotMatch")
