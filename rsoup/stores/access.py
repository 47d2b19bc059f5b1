"""An object store through obstore: what lies there, and parts of it, each under the ETag that was listed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from rsoup.errors import AccessError, BusyError, RefusedFileError, UsageError, show
from rsoup.remote.halting import Halt
from rsoup.stores.address import StoreAddress

MAX_FILES: Final = 5000
_STATUS: Final = re.compile(r"status code: ([0-9]{3})")
_TRIES: Final = 4
_SECONDS: Final = timedelta(seconds=60)
_AGAIN: Final = "run the same command again later"
_KEYS: Final = (
    "the environment's credentials are used: AWS_ACCESS_KEY_ID, AWS_PROFILE, a role; and AWS_REGION"
)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it was listed: `etag` differs when its bytes do; `version` where the bucket keeps several."""

    key: str
    nbytes: int
    etag: str
    version: str | None


class Store:
    """A bucket. Credentials are obstore's own business: the environment, a profile, a role; none is kept or shown."""

    def __init__(self, address: StoreAddress) -> None:
        """Raises UsageError E0748 without the library, AccessError E0746 where its configuration cannot be."""
        try:
            from obstore.store import from_url
        except ImportError:
            raise UsageError("E0748", f"{address.scheme}:// needs a library that is not installed", where=address.shown,
                             hint="pip install 'rewarded-soups[stores]'") from None  # fmt: skip
        self.address = address
        with told(address.shown):
            self._store: Any = from_url(
                address.url,
                retry_config={"max_retries": _TRIES, "retry_timeout": _SECONDS},
            )

    def objects(self) -> list[StoredObject]:
        """What lies under the address, or the one object that it is.

        Raises AccessError E0746 (nothing there, not allowed), RefusedFileError E0749 (too many, without ETag).
        """
        import obstore

        shown = self.address.shown
        with told(shown):
            batches = obstore.list(self._store, self.address.path or None, chunk_size=1000)
            rows = list(islice((row for batch in batches for row in batch), MAX_FILES + 1))
            if not rows and self.address.path:
                rows = [obstore.head(self._store, self.address.path)]
        if len(rows) > MAX_FILES:
            raise RefusedFileError("E0749", f"more than {MAX_FILES} objects", where=shown,
                                   hint="name the folder that holds the weights")  # fmt: skip
        if not rows:
            raise AccessError("E0746", "nothing lies there", where=shown, hint=_KEYS)
        if unmarked := [row["path"] for row in rows if not row["e_tag"]]:
            raise RefusedFileError("E0749", f"the store gives no ETag of '{show(unmarked[0])}', so a change could not be noticed",
                                   where=shown, hint="copy it to a folder first")  # fmt: skip
        return [StoredObject(row["path"], row["size"], str(row["e_tag"]), row["version"]) for row in rows]

    def read(self, found: StoredObject, start: int, buffer: memoryview, halt: Halt) -> None:
        """Fill `buffer` from byte `start` of an object on, if it is the one that was listed; E0747 if it changed."""
        import obstore

        halt.check()
        options: Any = {"range": (start, start + len(buffer)), "if_match": found.etag}
        if found.version is not None:
            options["version"] = found.version
        with told(f"{self.address.url}/{show(found.key)}"):
            data = memoryview(obstore.get(self._store, found.key, options=options).bytes())
        if len(data) != len(buffer):
            raise changed(f"{self.address.url}/{show(found.key)}")
        buffer[:] = data


def changed(where: str) -> RefusedFileError:
    """The error for an object that is another one now."""
    return RefusedFileError("E0747", "the object was replaced while it was read", where=where,
                            hint="wait until nobody writes to it, then run the same command again")  # fmt: skip


@contextmanager
def told(where: str) -> Iterator[None]:
    """Errors of the library inside as errors of rsoup about `where`: by their kind, never with their text."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError):
        raise AccessError(
            "E0746", "no such bucket or object", where=where, hint="check the spelling"
        ) from None
    except exceptions.PreconditionError:
        raise changed(where) from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
        raise AccessError(
            "E0746", "the store does not let these credentials read it", where=where, hint=_KEYS
        ) from None
    except exceptions.InvalidPathError:
        raise RefusedFileError("E0749", "it, or a name below it, is no path: an empty part, '..' or a control character",
                               where=where, hint="copy the files you need to a folder") from None  # fmt: skip
    except (exceptions.UnknownConfigurationKeyError, ValueError) as error:
        raise AccessError("E0746", f"the store's address or configuration cannot be used ({type(error).__name__})",
                          where=where, hint=_KEYS) from None  # fmt: skip
    except exceptions.BaseError as error:
        status = _STATUS.search(str(error))
        if status is not None and status[1] in ("401", "403", "404"):
            raise AccessError("E0746", f"the store answers {status[1]}: no such bucket, or not for these credentials",
                              where=where, hint=_KEYS) from None  # fmt: skip
        raise BusyError("E7510", f"the store does not answer ({type(error).__name__})", where=where,
                        hint=f"{_AGAIN}; {_KEYS}") from None  # fmt: skip
