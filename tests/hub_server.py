"""A Hub on the loopback that the real huggingface_hub client and the real `hf` command talk to.

`with Hub() as hub:` starts two hosts, as the real one has them: the endpoint (http://localhost:PORT) and the
storage (http://127.0.0.1:PORT2), which takes signed addresses only and no token ever. Clients get a cache of its
own, in a temporary folder or the one it is given. It is stricter than the Hub: unknown routes end up in
`hub.unknown`, its own mistakes in `hub.errors`, tokens that reach the storage in `hub.leaks`; leaving the block
asserts that all three are empty (`strict=False` lets a test look itself).
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import hub_reads  # noqa: F401  # registers its routes
import hub_writes  # noqa: F401  # registers its routes
from hub_calls import Call, find
from hub_store import Commit, PullRequest, Refusal, Repository, Store
from hub_wire import Answer, Fault, Request, Server, as_json
from hub_xet import XetStorage

__all__ = ["Commit", "Hub", "PullRequest", "Request"]


class Hub:
    """The Hub of a test: user `me`, member of `org` (`writable` names the namespaces), two tokens.

    `page` is the length of a page of a tree, `part` the bytes of a part above which an upload goes in parts,
    `stranger` the status a missing or private repository has for who has no token (the real Hub says 401),
    `cached` whether small files are answered by a relative redirect to /api/resolve-cache, as the real Hub may.
    """

    def __init__(self, folder: Path | None = None, *, strict: bool = True) -> None:
        self._own = tempfile.TemporaryDirectory()
        folder = folder or Path(self._own.name)
        self.home = folder / "hf-home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.store = Store()
        self.xet = XetStorage(folder / "cas")
        self.lock = self.store.lock
        self.closing = threading.Event()
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.unknown: list[str] = []
        self.errors: list[str] = []
        self.strict = strict
        self.page = 1000
        self.part: int | None = None
        self.stranger = 404
        self.cached = False
        self.writable = {"me", "org"}
        self.granted: set[str] = set()
        self.parts: dict[tuple[str, int], bytes] = {}
        self.signature = os.urandom(8).hex()

    def __enter__(self) -> Hub:
        self._endpoint, self._storage = Server(self, "endpoint"), Server(self, "storage")
        self.endpoint = f"http://localhost:{self._endpoint.port}"
        self.storage = f"http://127.0.0.1:{self._storage.port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._endpoint.stop()
        self._storage.stop()
        self._own.cleanup()
        if self.strict and kind is None:
            assert not self.errors, "\n".join(self.errors)
            assert not self.unknown, self.unknown
            assert not self.leaks, self.leaks

    def environment(self, *, token: str | None = "hf_write", xet: bool = False) -> dict[str, str]:
        """The variables of a client's process: this Hub, a cache of its own, nothing of the caller's HF_*."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        quiet = {f"HF_HUB_DISABLE_{what}": "1" for what in ("TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS")}
        own = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "100"}
        direct = {"NO_PROXY": "localhost,127.0.0.1", "no_proxy": "localhost,127.0.0.1"}
        found = kept | quiet | own | direct
        if token is not None:
            found["HF_TOKEN"] = token
        if not xet:
            found["HF_HUB_DISABLE_XET"] = "1"
        return found

    # What it holds.

    def add(
        self,
        repo: str,
        files: Mapping[str, bytes] | Path,
        *,
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
        title: str = "add files",
    ) -> str:
        """Commit files (or a folder's) to a branch, beside what it holds; the repository is made where there
        is none. Returns the commit's id.
        """
        if isinstance(files, Path):
            folder = files
            files = {
                p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
            }
        with self.lock:
            held = self.store.repositories.setdefault(repo, Repository(repo))
            held.private, held.gated = held.private or private, held.gated or gated
            start = held.ref(revision) or held.ref("main")
            tree = dict(held.commit(start).tree) if start else {}
            if start and not held.ref(revision):
                held.refs[f"refs/heads/{revision}"] = held.refs[start]
            tree |= {path: self.store.entry(path, data) for path, data in files.items()}
            return held.write(revision, tree, title, seconds=self.store.tick()).id

    def remove(self, repo: str, *paths: str, revision: str = "main") -> str:
        """Commit that files are gone; the commit's id."""
        with self.lock:
            held = self.repository(repo)
            tree = {path: entry for path, entry in held.commit(revision).tree.items() if path not in paths}
            return held.write(revision, tree, "remove files", seconds=self.store.tick()).id

    def repository(self, repo: str) -> Repository:
        """The repository of that very name."""
        return self.store.repositories[repo]

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What a revision holds now."""
        tree = self.repository(repo).commit(revision).tree
        return {path: self.store.content(entry) for path, entry in sorted(tree.items())}

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """A revision's commits, newest first."""
        return self.repository(repo).log(revision)

    def pull_requests(self, repo: str) -> list[PullRequest]:
        """In the order of their numbers; what they hold: `files(repo, pull.ref)`."""
        return self.repository(repo).pulls

    def rename(self, old: str, new: str) -> None:
        """Move a repository; its old name redirects."""
        with self.lock:
            held = self.store.repositories.pop(old)
            held.id = new
            self.store.repositories[new] = held
            self.store.moved[old] = new
            self.store.moved.pop(new, None)

    def delete(self, repo: str) -> None:
        """Take a repository away; large objects stay in the storage."""
        with self.lock:
            del self.store.repositories[repo]

    def move_branch(self, repo: str, commit: str, *, revision: str = "main") -> None:
        """Point a branch at another commit that exists (made where there is no such branch)."""
        with self.lock:
            held = self.repository(repo)
            held.refs[held.ref(revision) or f"refs/heads/{revision}"] = held.commit(commit).id

    def grant(self, repo: str) -> None:
        """Let the user's tokens read a gated repository."""
        self.granted.add(repo)

    # What goes wrong.

    def fail(
        self,
        route: str | re.Pattern[str],
        *,
        times: int = 1,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        cut_after: int | None = None,
        delay: float = 0,
        body: bytes | None = None,
        flip: int | None = None,
        ignore_range: bool = False,
        lost: bool = False,
        reset: bool = False,
    ) -> None:
        """Make the next `times` requests go wrong whose line (`METHOD endpoint|storage /path?query`) has `route`
        in it. Faults of one route come one after another, in the order they were asked for.

        `status`: answered so, with no effect. `body` alone: that HTML with 200, no effect. `headers`: added to
        or put in place of the answer's. `cut_after`: the answer's body ends after so many bytes. `flip`: the
        file's byte at that offset is changed (used up only by an answer that holds it). `ignore_range`: the
        whole file with 200. `reset`: the connection breaks after `cut_after` bytes of the request's body, no
        effect. `lost`: the request takes effect, the answer never comes. `delay`: seconds before the answer.
        """
        given = Fault(
            route, times, status, dict(headers or {}), cut_after, delay, body, flip, ignore_range, lost, reset
        )
        with self.lock:
            self.faults.append(given)

    def when(self, route: str | re.Pattern[str], action: Callable[[], object], *, times: int = 1) -> None:
        """Do something right before the next such request is answered: move a branch, commit, delete."""
        with self.lock:
            self.faults.append(Fault(route, times, action=action))

    # What came in.

    @property
    def leaks(self) -> list[Request]:
        """Requests that carried a token to the storage host."""
        return [request for request in self.requests if request.host == "storage" and request.authorized]

    def seen(self, route: str | re.Pattern[str]) -> list[Request]:
        """The requests whose line has `route` in it, in the order they came."""
        asked = Fault(route)
        return [request for request in list(self.requests) if asked.meets(request.line)]

    def answer(self, request: Request, body: bytes, wanted: str | None) -> Answer:
        """The answer of a route, a refusal, or what shows that the route is unknown."""
        call = Call(self, request, body, wanted)
        try:
            with self.lock:
                serve = find(call)
                if serve is None:
                    self.unknown.append(request.line)
                    return as_json({"error": "unknown route"}, 404)
                return serve(call)
        except Refusal as refusal:
            return refused(refusal)
        except Exception:
            self.errors.append(f"{request.line}\n{traceback.format_exc()}")
            return as_json({"error": "the tests' Hub is at fault"}, 400)


def refused(refusal: Refusal) -> Answer:
    """A refusal as the Hub words it: in JSON and in two headers."""
    named = {"X-Error-Message": refusal.message}
    if refusal.code:
        named["X-Error-Code"] = refusal.code
    return as_json({"error": refusal.message}, refusal.status, named)
