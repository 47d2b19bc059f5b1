"""`s3://bucket/prefix`, `gs://…`, `az://account/container/prefix` → StoreAddress. Nobody is asked."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from rsoup.errors import UsageError, show_path
from rsoup.hub.address import is_inside

SCHEMES: Final = ("s3", "gs", "az")
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A folder or an object: `root` is the bucket (az: account/container), `path` '' all of it."""

    scheme: str
    root: str
    path: str

    @property
    def url(self) -> str:
        """The bucket as a URL."""
        return f"{self.scheme}://{self.root}"

    @property
    def uri(self) -> str:
        """The address as a text that `parse` takes."""
        return f"{self.url}/{self.path}".rstrip("/")

    @property
    def shown(self) -> str:
        """What to call it in messages."""
        return show_path(self.uri)


def is_store(uri: str) -> bool:
    """Whether a text is meant as an address of an object store."""
    return uri.partition("://")[0] in SCHEMES and "://" in uri


def split_far(uri: str) -> tuple[str, str] | None:
    """(checkpoint, adapter) of `CHECKPOINT+ADAPTER` where the adapter lies in an object store; None for anything else."""
    if os.path.lexists(uri):
        return None
    for at in (i for i in range(len(uri) - 1, 0, -1) if uri[i] == "+"):
        if is_store(uri[at + 1 :]):
            return uri[:at], uri[at + 1 :]
    return None


def parse(uri: str) -> StoreAddress:
    """The address that a text is. Raises UsageError E0745; a text with a secret in it is not repeated."""
    scheme, _, rest = uri.partition("://")
    if any(mark in rest for mark in "@?#"):
        raise UsageError("E0745", "an address of an object store holds no keys, signature or version", where=f"{scheme}://…",
                         hint="credentials come from the environment: AWS_ACCESS_KEY_ID, AWS_PROFILE, a role")  # fmt: skip
    parts = rest.rstrip("/").split("/")
    count = 2 if scheme == "az" else 1
    root, path = parts[:count], "/".join(parts[count:])
    if len(root) < count or not all(map(_PART.fullmatch, root)) or (path and not is_inside(path)):
        form = "az://account/container/folder" if scheme == "az" else f"{scheme}://bucket/folder"
        raise UsageError("E0745", "this is no address in an object store", where=show_path(uri), hint=form)
    return StoreAddress(scheme, "/".join(root), path)
