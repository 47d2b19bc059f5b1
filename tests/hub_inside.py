"""The tests' Hub for rsoup inside this process: no process is started, and what it leaves behind can be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hub_server import Hub


@contextmanager
def inside(hub: Hub, *, token: str | None = "hf_write") -> Iterator[pytest.MonkeyPatch]:
    """The Hub's client in this process asks this Hub, and keeps what it downloads in the Hub's folder."""
    from huggingface_hub import constants

    from rsoup.hub import commit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HF_HUB_CACHE", str(hub.home / "hub"))
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        if token is not None:
            patch.setenv("HF_TOKEN", token)
        patch.setenv("NO_PROXY", "localhost,127.0.0.1")
        commit.commit_of.cache_clear()
        commit._resolved.cache_clear()  # each test has a Hub of its own
        commit._silent.clear()
        commit._names.clear()
        yield patch
        commit.commit_of.cache_clear()
        commit._resolved.cache_clear()
