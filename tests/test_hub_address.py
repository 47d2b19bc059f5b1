"""Addresses of the Hub: what is one, what is a path, and that no text leads out of a repository."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.errors import UsageError
from rsoup.hub.address import Address, address_of, halves, is_inside, parse
from rsoup.hub.patience import LONGEST_WAIT, pause, retry_after
from rsoup.recipe import public_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("org/name", Address("org/name")),
        ("org/name@main", Address("org/name", "main")),
        ("Org-1/na.me_2", Address("Org-1/na.me_2")),
        (f"org/name@{COMMIT}", Address("org/name", COMMIT)),
        ("org/name@refs/pr/3", Address("org/name", "refs/pr/3")),
        ("hf://org/name", Address("org/name")),
        ("hf://models/org/name", Address("org/name")),
        ("hf://org/name@v1.0/unet", Address("org/name", "v1.0", "unet")),
        ("hf://org/name/a/b", Address("org/name", None, "a/b")),
        ("hf://org/name@refs/pr/3/a", Address("org/name", "refs/pr/3", "a")),
        ("hf://org/name@a%2Fb/c", Address("org/name", "a/b", "c")),
        ("https://huggingface.co/org/name", Address("org/name")),
        ("https://huggingface.co/org/name/", Address("org/name")),
        ("https://hf.co/org/name/tree/main", Address("org/name", "main")),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3/a", Address("org/name", "refs/pr/3", "a")),
        ("https://huggingface.co/org/name/tree/v1/a/b?x=1#y", Address("org/name", "v1", "a/b")),
        ("https://huggingface.co/org/name/blob/main/a.safetensors", Address("org/name", "main", "a.safetensors")),
        ("https://huggingface.co/org/name/resolve/main/a.bin", Address("org/name", "main", "a.bin")),
    ],
)  # fmt: skip
def test_an_address_is_read_and_its_uri_reads_back(text: str, address: Address) -> None:
    """parse(text) is the address, and parse(uri) is it again."""
    assert parse(text) == address
    assert parse(address.uri) == address


@pytest.mark.parametrize(
    "text",
    ["name", "./org/name", "/org/name", "../name", "org/../name", "a/b/c", "org/name/", "org/na..me", "org/na--me", "org/name.git",
     "org/.name", "-org/name", "org/name@", "org/name@a..b", "org/name@-x", "s3://bucket/key", "file:///etc/passwd", "", "/", "~/x",
     "org/na me", "org/name\n", "C:/x\\y", "https://example.com/org/name", "o" * 97 + "/name"],
)  # fmt: skip
def test_what_can_only_be_a_path_is_none(text: str) -> None:
    """No address is made of a text that the Hub could not have as a name."""
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://name", "hf://org/name@", "hf://org/name@main/../x", "hf://org/name/a//b", "hf://datasets/org/name",
     "hf://org/name@%2e%2e", "hf://org/name/a\\b", "https://huggingface.co/org", "https://huggingface.co/datasets/a/b",
     "https://huggingface.co/org/name/discussions/1", "https://huggingface.co/org/name/blob/main/%2e%2e/x", "hf://org/name/%00".replace("%00", "\0")],
)  # fmt: skip
def test_an_address_that_cannot_be_meant_is_refused(text: str) -> None:
    """E0710 says so, instead of looking for a file of that name."""
    with pytest.raises(UsageError) as caught:
        parse(text)

    assert caught.value.code == "E0710"


@given(st.text(max_size=40))
def test_no_text_leads_out_of_a_repository(text: str) -> None:
    """Whatever parses has a path without `..`, and reads back."""
    for tried in (
        text,
        f"hf://org/name/{text}",
        f"hf://org/name@{text}",
        f"https://hf.co/org/name/tree/{text}",
    ):
        try:
            found = parse(tried)
        except UsageError:
            continue
        if found is not None:
            assert ".." not in found.path.split("/")
            assert ".." not in (found.revision or "")
            assert found.path == "" or is_inside(found.path)
            assert parse(found.uri) == found


def test_what_lies_here_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that exists is a path; so is one in a folder that exists, unless it is written hf://."""
    monkeypatch.chdir(tmp_path)
    assert address_of("org/name") == Address("org/name")
    (tmp_path / "org" / "name").mkdir(parents=True)

    assert address_of("org/name") is None
    assert address_of("org/other") is None
    assert address_of("hf://org/other") == Address("org/other")


def test_a_checkpoint_and_an_adapter_may_both_be_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`A+B` is parted where both sides can be had; a plain path with a plus is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()

    assert halves("org/a+org/b") == ("org/a", "org/b")
    assert halves("hf://org/a@v1+hf://org/b/sub") == ("hf://org/a@v1", "hf://org/b/sub")
    assert halves("here+org/b") == ("here", "org/b")
    assert halves("here+there") is None
    assert halves("org/a") is None


def test_a_public_name_holds_the_commit_and_no_local_path() -> None:
    """org/name@commit for an address, the last part for a path, each by itself around a plus."""
    at = f"hf://org/name@{COMMIT}"

    assert public_name(at) == f"org/name@{COMMIT}"
    assert public_name(f"{at}/unet") == f"org/name@{COMMIT}/unet"
    assert public_name(f"/home/me/secret/base+{at}") == f"base+org/name@{COMMIT}"
    assert public_name(f"{at}+/home/me/secret/adapter") == f"org/name@{COMMIT}+adapter"


@pytest.mark.parametrize(
    ("name", "inside"),
    [("a/b.json", True), ("../a", False), ("a/../b", False), ("/a", False), ("a//b", False), ("a\\b", False), ("C:\\x", False),
     ("a\nb", False), ("", False), (".", False), ("a/", False), ("x" * 256, False)],
)  # fmt: skip
def test_names_that_could_lead_elsewhere_are_known(name: str, inside: bool) -> None:
    """No name of the Hub's list may leave its folder on any system."""
    assert is_inside(name) == inside


def test_the_servers_hint_is_followed_in_both_forms() -> None:
    """Retry-After: seconds, or a date; nonsense is no hint; a minute is the longest wait."""
    assert retry_after({"Retry-After": "7"}, 0) == 7
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 40) == 60
    assert retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 200) == 0
    assert retry_after({"Retry-After": "soon"}, 0) is None
    assert retry_after({}, 0) is None
    assert pause(1, 1e6) <= LONGEST_WAIT + 1
    assert all(0.5 * 2 ** (n - 1) <= pause(n, None) <= 2 ** (n - 1) for n in range(1, 5))
