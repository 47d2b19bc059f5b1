"""What is published of a soup: a card the Hub's own client understands, licences nobody chose, nothing private."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from adapters import make
from conftest import Folders
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given
from hypothesis import strategies as st

import rsoup
from rsoup.errors import AccessError, BusyError, RefusedFileError, RsoupError, TargetError, UsageError
from rsoup.measured.table import read_table
from rsoup.measured.values import Measured, Quality, Row, Table
from rsoup.proof.verifying import verify
from rsoup.publish import parcel as parcels
from rsoup.publish.asked import Options
from rsoup.publish.committing import change_of
from rsoup.publish.parcel import Item, check_names, is_weights, pack
from rsoup.publish.publication import Publication, publication
from rsoup.publish.redaction import Private, findings, refuse, without_tokens
from rsoup.publish.refusals import translated, wait_of
from rsoup.publish.remote import RemoteFile, who
from rsoup.publish.results import is_soup_of, joined, model_index, point_of
from rsoup.report import card

TOKEN = "hf_" + "aB3" * 11
NUMBERS = st.floats(-1e6, 1e6)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


def canonical(shares: Mapping[str, str], scale: str = "1") -> dict[str, Any]:
    """The recipe of a soup as its manifest has it, as far as λ goes."""
    return {
        "ingredients": [{"name": name, "lambda": share} for name, share in shares.items()],
        "scale": scale,
        "per_tensor": [],
    }


def table(*rows: Row, guards: tuple[str, ...] = ()) -> Table:
    """A table of these points, whose ingredients are a and b."""
    metrics = {name: Quality(True, name in guards) for row in rows for name in row.select}
    return Table("table", metrics, rows, ("a", "b"))


def row(name: str, share: str, scale: str = "1", step: int | None = None, **values: float) -> Row:
    """A measured point with λ = (share, 1 − share)."""
    mix = (Fraction(share), 1 - Fraction(share))
    scores = {metric: Measured(value) for metric, value in (values or {"r": 1.0}).items()}
    return Row(name, "done", scores, {}, mix, Fraction(scale), step)


# The point and its results.


@given(st.integers(0, 12), st.sampled_from(["1", "1/2"]))
def test_the_point_is_the_one_of_equal_mix_and_scale(i: int, scale: str) -> None:
    """Of 13 λ at two scales exactly the soup's own is found, whatever the order of its ingredients."""
    points = [row(f"p{k}-{s}", f"{k}/12", s) for k in range(13) for s in ("1", "1/2")]
    shares = {"b": str(1 - Fraction(i, 12)), "a": str(Fraction(i, 12))}

    assert point_of(table(*points), canonical(shares, scale), None).row.name == f"p{i}-{scale}"


def test_no_point_or_two_points_are_refused() -> None:
    """A λ that was not measured, or was at two training steps, is not guessed."""
    twice = table(row("early", "0.5", step=1), row("late", "0.5", step=2))
    for found, shares in (
        (table(row("p", "0.5")), {"a": "0.3", "b": "0.7"}),
        (twice, {"a": "0.5", "b": "0.5"}),
    ):
        with pytest.raises(UsageError) as caught:
            point_of(found, canonical(shares), None)
        assert caught.value.code == "E0720"
    assert point_of(twice, canonical({"a": "0.5", "b": "0.5"}), "late").row.step == 2


def test_a_named_point_must_be_the_soup() -> None:
    """--point cannot put the results of one λ into the card of another, and a point that failed has none."""
    with pytest.raises(UsageError, match="another soup"):
        point_of(table(row("p", "0.5")), canonical({"a": "0.3", "b": "0.7"}), "p")
    failed = Table("t", {"r": Quality(True, False)}, (Row("x", "failed", {}, {}, None),), ("a", "b"))
    with pytest.raises(UsageError, match="not measured"):
        point_of(failed, None, "x")
    assert (
        is_soup_of({**canonical({"a": "1/2", "b": "1/2"}), "per_tensor": [1]}, table(), row("p", "0.5"))
        is None
    )


@given(
    st.dictionaries(NAMES, st.tuples(NUMBERS, st.none() | st.floats(0, 100)), min_size=1, max_size=5),
    st.booleans(),
)
def test_the_hub_client_reads_every_metric_and_value(
    values: dict[str, tuple[float, float | None]], report: bool
) -> None:
    """model-index → YAML → huggingface_hub's ModelCardData and EvalResult gives every name and value back."""
    scores = {name: Measured(*pair) for name, pair in values.items()}
    point = Row("p", "done", scores, scores if report else {}, (Fraction(1), Fraction(0)))
    metrics = {name: Quality(True, i > 0) for i, name in enumerate(scores)}
    index = model_index("soup", point_of(Table("t", metrics, (point,), ("a", "b")), None, "p"), None)
    parsed = ModelCard(card.join({"model-index": index}, "prose"), ignore_metadata_errors=False).data

    assert isinstance(parsed, ModelCardData)
    assert {r.metric_type: r.metric_value for r in parsed.eval_results or []} == {
        n: m.value for n, m in scores.items()
    }
    assert {r.dataset_split for r in parsed.eval_results or []} == {"report" if report else "select"}
    assert not any(r.verified for r in parsed.eval_results or [])
    for result, name in zip(model_index_to_eval_results(index)[1], scores, strict=True):
        assert ("±" in str(result.metric_name).removeprefix(name)) == (scores[name].error is not None)


def test_results_of_others_stay() -> None:
    """Only rsoup's own results are replaced, or taken out when another soup is published without any."""
    other = {
        "task": {"type": "x"},
        "dataset": {"type": "gsm8k", "name": "GSM8K"},
        "metrics": [{"type": "acc", "value": 1}],
    }
    ours = model_index("soup", point_of(table(row("p", "1")), None, "p"), None)
    old = [{"name": "soup", "results": [other, *ours[0]["results"]]}]  # type: ignore[misc]

    assert joined(old, None) == ([{"name": "soup", "results": [other]}], True)
    assert joined(old, None, same_soup=True) == (old, False)
    assert joined(old, ours) == ([*ours, {"name": "soup", "results": [other]}], False)
    assert joined(None, None) == (None, False)


# The card.


@pytest.fixture
def soup(base_and_two: Folders) -> Path:
    """A soup whose two ingredients say nothing of themselves."""
    return merged(base_and_two)


def merged(folders: Folders, one: str = "", two: str = "") -> Path:
    """The soup of the two fine-tunes with these lines of metadata in their cards."""
    shutil.rmtree(folders.root / "soup", ignore_errors=True)
    for folder, text in ((folders.one, one), (folders.two, two)):
        (folder / "README.md").write_text(f"---\n{text}\n---\n")
    recipe = rsoup.make_recipe(
        {"one": folders.one, "two": folders.two}, mix=["0.3", "0.7"], base=folders.base
    )
    rsoup.merge(recipe, folders.root / "soup")
    return folders.root / "soup"


def published(folder: Path, remote_card: str | None = None, **options: Any) -> Publication:
    """What is published of a soup."""
    return publication(pack(str(folder)), "me/soup", remote_card=remote_card, **options)


def text_of(made: Publication, name: str = "README.md") -> str:
    """A published text."""
    return b"".join(bytes(chunk) for chunk in made.items[name].chunks()).decode()


def test_the_recipe_is_in_the_card(soup: Path) -> None:
    """`rsoup:` names the recipe's hash, every λ exactly, and every ingredient by the digest of its content."""
    made = published(soup)
    manifest = json.loads((soup / "rsoup.json").read_text())
    about = ModelCard(text_of(made)).data.to_dict()["rsoup"]

    assert about["recipe"] == manifest["recipe"]["sha256"]
    assert about["lambda"] == {"one": "0.3", "two": "0.7"}
    assert [one["content"] for one in about["ingredients"]] == [
        one["content"] for one in manifest["ingredients"]
    ]


def test_ingredients_of_the_hub_are_pinned(soup: Path) -> None:
    """Where the manifest knows an ingredient's commit, base_model names the repository and the recipe pins it."""
    parcel = pack(str(soup))
    assert parcel.claims is not None
    rows = [
        {**one, "checkpoint": f"org/{one['name']}@{'a1' * 20}/best"}
        for one in parcel.claims.value["ingredients"]
    ]
    claims = replace(parcel.claims, value={**parcel.claims.value, "ingredients": rows})
    made = publication(replace(parcel, claims=claims), "me/soup")

    assert made.metadata["base_model"] == ["org/one", "org/two"]
    assert made.metadata["base_model_relation"] == "merge"
    assert f"org/one@{'a1' * 20}" in text_of(made)


def test_a_path_is_no_base_model(base_and_two: Folders) -> None:
    """A base_model that lay on this machine is left out of the card, and a note says so."""
    folder = merged(base_and_two)
    data = (folder / "README.md").read_text().replace("---\n", "---\nbase_model: /scratch/llama\n", 1)
    parcel = parcels.Parcel({}, None, data)
    made = publication(parcel, "me/soup")

    assert "base_model" not in made.metadata
    assert any("names of the Hub only" in note for note in made.notes)


def test_the_prose_of_the_hubs_card_stays(soup: Path) -> None:
    """An existing card keeps every word and every key rsoup knows nothing of; tags are joined."""
    prose = "\n# Mine\n\nIt tastes of λ.\n"
    made = published(soup, f"---\nmine: 1\ntags: [spicy]\n---\n{prose}")
    metadata, found = card.split(text_of(made))

    assert found == prose
    assert metadata["mine"] == 1
    assert metadata["tags"] == ["spicy", "merge", "rsoup", "rewarded-soup"]


def test_words_that_are_not_published_are_said(base_and_two: Folders) -> None:
    """Where the Hub's card keeps its prose and the folder has another, a note says so."""
    (base_and_two.one / "README.md").write_text("new words")
    made = published(base_and_two.one, "old words")

    assert text_of(made).endswith("old words")
    assert any("keeps its prose" in note for note in made.notes)


def test_rsoups_own_part_of_the_card_is_replaced(base_and_two: Folders) -> None:
    """Words around rsoup's own part stay; the part itself is about the soup that is published."""
    first = text_of(published(merged(base_and_two)))
    metadata, prose = card.split(first)
    edited = card.join(metadata, f"before\n{prose}after\n")
    recipe = rsoup.make_recipe({"one": base_and_two.one, "two": base_and_two.two}, mix=["0.9", "0.1"])
    rsoup.merge(recipe, base_and_two.root / "other")
    text = card.split(text_of(published(base_and_two.root / "other", edited)))[1]

    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| 0.9 |" in text
    assert "| 0.3 |" not in text


def test_publishing_twice_changes_nothing(base_and_two: Folders, tmp_path: Path) -> None:
    """The card that is published is what is published again on top of it, with results and without."""
    folder = merged(base_and_two, "license: mit\nbase_model: org/base")
    results = point_of(sweep(tmp_path), canonical({"one": "0.3", "two": "0.7"}), None)
    first = published(folder, results=results)
    soup_rows = {one["name"]: one for one in json.loads(text_of(first, "rsoup.json"))["subject"]}

    for again in (
        published(folder, text_of(first), results=results, remote_soup=soup_rows),
        published(folder, text_of(first), remote_soup=soup_rows),
    ):
        assert text_of(again) == text_of(first)
        assert text_of(again, "rsoup.json") == text_of(first, "rsoup.json")
        assert {"front.png", "front.svg"} & (set(again.items) | set(again.stay))


def sweep(folder: Path) -> Table:
    """A sweep's metrics.json of three λ with two rewards and a guard metric, read back."""
    values = [("1", "0", 0.9, 0.1), ("0.3", "0.7", 0.7, 0.8), ("0", "1", 0.2, 0.85)]
    points = [
        {"point": f"p{a}", "lambda": {"one": a, "two": b}, "status": "done", "report": None, "select": {
            "help": {"value": x, "error": 0.01, "n": 3}, "harm": {"value": y, "error": None, "n": None}, "ppl": {"value": 4.5, "error": None, "n": None}}}
        for a, b, x, y in values
    ]  # fmt: skip
    metrics = {n: {"direction": "maximise", "guard": n == "ppl"} for n in ("help", "harm", "ppl")}
    found = {"schema": "rsoup-metrics/1", "ingredients": ["one", "two"], "metrics": metrics, "points": points}
    (folder / "metrics.json").write_text(json.dumps(found))
    return read_table(str(folder / "metrics.json"))


def test_what_is_published_verifies(base_and_two: Folders, tmp_path: Path) -> None:
    """The published files, card, picture and all, are a soup that rsoup verify holds for true."""
    folder = merged(base_and_two)
    made = published(folder, results=point_of(sweep(tmp_path), canonical({"one": "0.3", "two": "0.7"}), None))
    (tmp_path / "fetched").mkdir()
    for name, item in made.items.items():
        (tmp_path / "fetched" / name).write_bytes(b"".join(bytes(chunk) for chunk in item.chunks()))

    verify(tmp_path / "fetched")
    assert {"front.png", "front.svg"} & set(made.items)


def test_an_adapter_sits_on_its_base(zoo_folder: Path, tmp_path: Path) -> None:
    """A soup of adapters is an adapter of its base, with the tags it is found by; any adapter's folder is published too."""
    made = make("plain", zoo_folder)
    recipe = rsoup.make_recipe(list(made.adapters), uniform=True)
    rsoup.merge(recipe, tmp_path / "soup")
    text = (tmp_path / "soup" / "README.md").read_text()
    found = publication(
        replace(pack(str(tmp_path / "soup")), card=text.replace("---\n", "---\nbase_model: org/base\n", 1)),
        "me/soup",
    )

    assert found.metadata["base_model"] == "org/base"
    assert found.metadata["base_model_relation"] == "adapter"
    assert found.metadata["library_name"] == "peft"
    assert set(card.as_list(found.metadata["tags"])) >= {"lora", "merge", "rsoup", "rewarded-soup"}
    assert "adapter_config.json" in pack(str(made.adapters[0])).items


def test_a_pipeline_is_published_as_it_is(base_and_two: Folders, tmp_path: Path) -> None:
    """A folder whose weights lie in subfolders goes whole, git's own files left out; no weights is no checkpoint."""
    shutil.copytree(base_and_two.one, tmp_path / "pipe" / "unet")
    (tmp_path / "pipe" / "model_index.json").write_text("{}")
    (tmp_path / "pipe" / ".git").mkdir()
    (tmp_path / "pipe" / ".git" / "config").write_text("secret")
    (tmp_path / "none").mkdir()

    assert set(pack(str(tmp_path / "pipe")).items) == {
        "model_index.json",
        "unet/config.json",
        "unet/model.safetensors",
    }
    with pytest.raises(RefusedFileError):
        pack(str(tmp_path / "none"))
    with pytest.raises(UsageError):
        pack(str(base_and_two.one / "model.safetensors"))


def test_a_link_that_leads_out_is_not_followed(base_and_two: Folders, tmp_path: Path) -> None:
    """What a link outside the folder leads to is not published, beside the weights or below them."""
    (tmp_path / "secret").write_text("mine")
    for place in (base_and_two.one / "notes.txt", base_and_two.two / "deep" / "notes.txt"):
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(tmp_path / "secret")
        with pytest.raises(RsoupError, match="link"):
            pack(str(base_and_two.one if place.parent == base_and_two.one else base_and_two.two))


@given(
    st.text(alphabet="ab<!->\n/ "),
    st.text(alphabet="ab<!->\n"),
    st.text(alphabet="ab\n"),
    st.text(alphabet="xy\n"),
)
def test_a_section_is_replaced_and_nothing_else(before: str, after: str, old: str, new: str) -> None:
    """with_section changes what stands between the marks; adding and taking out a section are each other's inverse."""
    prose = before + card.marked("mark", old) + after

    assert card.section(prose, "mark") == old
    assert card.with_section(prose, "mark", new) == before + card.marked("mark", new) + after
    assert card.without_section(prose, "mark") == before + after
    assert card.with_section(before, "mark", new, append=False) == before
    if before.endswith("\n") or not before:
        assert card.without_section(card.with_section(before, "mark", new), "mark") == before


# Licences.


@pytest.mark.parametrize(
    ("one", "two", "base", "expected"),
    [
        ("mit", "mit", "apache-2.0", "mit"),
        ("mit", "", "apache-2.0", "mit"),
        ("license", "", "apache-2.0", "apache-2.0"),
        ("", "", None, None),
        ("mit", "apache-2.0", None, UsageError),
    ],
)
def test_a_licence_is_inherited_or_asked_for(
    base_and_two: Folders, one: str, two: str, base: str | None, expected: str | type[UsageError] | None
) -> None:
    """Equal: inherited; different: refused; none: the base's, and said so; TRL's placeholder is none."""
    folder = merged(base_and_two, f"license: {one}" if one else "", f"license: {two}" if two else "")
    bases = {"org/base": {"license": base}}
    if isinstance(expected, type):
        with pytest.raises(UsageError) as caught:
            published(folder, base_cards=bases)
        assert caught.value.code == "E0721"
        assert published(folder, license_="mit").metadata["license"] == "mit"
        return
    made = published(folder, base_cards=bases)

    assert made.metadata.get("license") == expected
    assert any("base model's" in note for note in made.notes) == (expected == base and base is not None)
    assert any("names no licence" in note for note in made.notes) == (expected is None)


def test_the_hubs_card_and_the_soup_must_agree(base_and_two: Folders) -> None:
    """A licence that is published already is neither replaced nor kept beside another one, unless asked for."""
    folder = merged(base_and_two, "license: mit", "license: mit")
    there = "---\nlicense: apache-2.0\n---\n"
    with pytest.raises(UsageError) as caught:
        published(folder, there)

    assert caught.value.code == "E0721"
    assert published(folder, there, license_="apache-2.0").metadata["license"] == "apache-2.0"
    assert published(merged(base_and_two), there).metadata["license"] == "apache-2.0"


# Nothing private.

HERE = Private("/home/alice", "alice", lambda path: path == "/scratch/run7/llama")


@pytest.mark.fault("K18")
@pytest.mark.parametrize(
    "line",
    [
        "trained from /home/alice/models/base",
        'path: "/scratch/alice/base"',
        "/home/bob/x",
        "/Users/bob/x",
        "C:\\Users\\bob\\x",
        f"login({TOKEN!r})",
        '"base_model_name_or_path": "/models/llama"',
        '"_name_or_path": "../llama"',
        "from /scratch/run7/llama",
        "cd /home/alice",
        "file:///home/bob/x",
    ],
)
def test_what_is_private_is_found_with_its_line(line: str) -> None:
    """A home folder, the user's name in a path, a path that is here, a token: named by file and line, never shown."""
    problems = findings("README.md", f"first\n{line}\nlast", HERE)

    assert [problem.where for problem in problems] == ["README.md:2"]
    assert not any(part in problems[0].what for part in ("alice", "bob", "llama", TOKEN))
    with pytest.raises(UsageError) as caught:
        refuse(problems)
    assert caught.value.code == "E0722"


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/alice/model",
        "alice wrote it; see docs/home/index.md",
        "run /usr/bin/env python",
        '"_name_or_path": "org/llama"',
        "hf_hub_download, hf_xet",
        "either/or, and </think>",
        "/scratch/other/place",
    ],
)
def test_what_is_public_is_not(line: str) -> None:
    """Addresses, names of models and of functions, and paths of the system are nobody's secret."""
    assert findings("README.md", line, HERE) == []


def test_a_vocabulary_has_words_not_paths() -> None:
    """`/home/x` is a token in a tokenizer's list of words, and a path anywhere else."""
    assert findings("tokenizer.json", '"/home/x": 17', Private()) == []
    assert len(findings("config.json", '"/home/x": 17', Private())) == 1


@given(st.text(), st.sampled_from(["Bearer ", "token=", "'", "b'Bearer "]), st.text())
def test_no_token_survives_in_a_message(before: str, glue: str, after: str) -> None:
    """Whatever a message says, a token in it is struck out, and it is one line."""
    shown = without_tokens(f"{before} {glue}{TOKEN}' {after}")

    assert TOKEN not in shown
    assert "\n" not in shown
    assert (
        without_tokens("hf_xet and hf_hub_download are no tokens")
        == "hf_xet and hf_hub_download are no tokens"
    )


# Names and files.


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", ".git/config", "a\nb", "a/.GIT/x", "x ", "a//b", "a\u202eb"]
)
def test_names_a_repository_cannot_hold_are_refused(name: str) -> None:
    """A name that leads out, into git, or reads as another one is not published."""
    with pytest.raises(UsageError) as caught:
        check_names(["fine.json", name])
    assert caught.value.code == "E0720"
    with pytest.raises(UsageError):
        check_names(["Model.json", "model.JSON"])


@pytest.mark.fault("K15")
def test_stale_weights_go_and_nothing_else() -> None:
    """Deleted is what is weights there, or the soup's there, and is not published; what is equal is not sent."""
    same, new = Item("config.json", 2, data=b"{}"), Item("model.safetensors", 3, data=b"abc")
    there = {
        "config.json": RemoteFile(2, None, same.blob_id()),
        "model-00001-of-00002.safetensors": RemoteFile(9, "0" * 64, "1" * 40),
        "model.safetensors.index.json": RemoteFile(9, None, "1" * 40),
        "training_args.bin": RemoteFile(9, "0" * 64, "1" * 40),
        "picture.png": RemoteFile(9, None, "1" * 40),
        "old.txt": RemoteFile(9, None, "1" * 40),
        "rsoup.json": RemoteFile(9, None, "1" * 40),
    }
    change = change_of(
        {"config.json": same, "model.safetensors": new}, there, ["old.txt", "config.json", "rsoup.json"]
    )

    assert (change.kept, change.added, change.replaced) == ((same,), (new,), ())
    assert change.deleted == (
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "old.txt",
        "rsoup.json",
    )
    assert is_weights("adapter_config.json")
    assert not is_weights("optimizer.pt")


@given(st.binary(max_size=200))
def test_equal_bytes_are_known_by_gits_id_and_by_sha256(data: bytes) -> None:
    """Git's blob id and SHA-256, computed here with git's own formula, tell equal from different."""
    import hashlib

    item = Item("x", len(data), data=data)
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    assert RemoteFile(len(data), None, blob).equals(item)
    assert RemoteFile(len(data), hashlib.sha256(data).hexdigest(), "0" * 40).equals(item)
    assert not RemoteFile(len(data), None, "0" * 40).equals(item)
    assert not RemoteFile(len(data) + 1, None, blob).equals(item)


# Options, rights, errors.


@pytest.mark.parametrize(
    "repo", ["soup", "a/b/c", "/x/y", "me/..", "me/so up", "https://hf.co/me/soup", "me/-x", "me/x.git", ""]
)
def test_a_repository_has_two_names(repo: str) -> None:
    """org/name and nothing else is a repository; contradicting options are refused."""
    with pytest.raises(UsageError):
        Options().check(repo)
    Options(revision="lambda-0.3/a", results="x", point="p").check("me/soup-1.5_x")


@pytest.mark.parametrize(
    "options",
    [
        Options(create_pr=True, revision="x"),
        Options(point="p"),
        Options(commit_message=" "),
        Options(revision="a..b"),
        Options(revision="-x"),
    ],
)
def test_contradictions_are_refused(options: Options) -> None:
    """Options that cannot be meant together are E0720."""
    with pytest.raises(UsageError) as caught:
        options.check("me/soup")
    assert caught.value.code == "E0720"


class Account:
    """An account of the Hub with a token of this role."""

    def __init__(self, role: str, rights: Mapping[str, Any] | None = None) -> None:
        self.token = {"role": role, "fineGrained": rights or {}}

    def whoami(self) -> dict[str, Any]:
        """What the Hub says of who asks."""
        orgs = [{"name": "org", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}]
        return {"name": "me", "orgs": orgs, "auth": {"type": "access_token", "accessToken": self.token}}


@pytest.mark.fault("K2")
@pytest.mark.parametrize(
    ("role", "repo", "options", "may"),
    [
        ("write", "me/x", Options(), True),
        ("write", "Org/x", Options(), True),
        ("write", "readers/x", Options(), False),
        ("write", "you/x", Options(), False),
        ("write", "you/x", Options(create_pr=True), True),
        ("read", "me/x", Options(), False),
        ("read", "me/x", Options(create_pr=True), False),
        ("fineGrained", "me/x", Options(), False),
    ],
)
def test_the_right_to_write_is_known_before(role: str, repo: str, options: Options, may: bool) -> None:
    """A token that only reads, or a stranger's namespace, is refused before anything is sent."""
    if may:
        assert who(Account(role), repo, options) == "me"
        return
    with pytest.raises(AccessError) as caught:
        who(Account(role), repo, options)
    assert caught.value.code == "E0725"
    rights = {"scoped": [{"permissions": ["repo.content.read", "repo.write"]}]}
    assert who(Account("fineGrained", rights), "me/x", Options()) == "me"


class Answer:
    """An answer of the Hub."""

    def __init__(self, status: int, **headers: str) -> None:
        self.status_code, self.headers = status, {k.replace("_", "-"): v for k, v in headers.items()}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(401, "E0724", AccessError), (403, "E0725", AccessError), (412, "E7511", BusyError), (429, "E7511", BusyError), (400, "E0727", TargetError), (503, "E0726", AccessError)],
)  # fmt: skip
def test_every_answer_is_an_error_of_its_own(status: int, code: str, kind: type[RsoupError]) -> None:
    """Every refusal of the Hub has a code, a way out, and no token in it."""
    error = OSError(f"no: Bearer {TOKEN}")
    error.response = Answer(status)  # type: ignore[attr-defined]
    found = translated(error, "me/x")

    assert (type(found), found.code) == (kind, code)
    assert found.hint
    assert TOKEN not in str(found)


def test_the_hub_says_how_long_to_wait() -> None:
    """Retry-After and RateLimit decide; without them the wait grows; it never exceeds 30 seconds."""
    error = OSError()
    error.response = Answer(429, retry_after="3")  # type: ignore[attr-defined]
    assert wait_of(error, 0) == 3
    later = formatdate(time.time() + 20, usegmt=True)
    error.response = Answer(429, retry_after=later)  # type: ignore[attr-defined]
    assert 15 < wait_of(error, 0) <= 20
    error.response = Answer(429, ratelimit='"api";r=0;t=7')  # type: ignore[attr-defined]
    assert wait_of(error, 0) == 7
    assert wait_of(OSError(), 0) < wait_of(OSError(), 1) <= wait_of(OSError(), 9) == 30
