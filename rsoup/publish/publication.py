"""What is published of a parcel: its card brought up to date, the picture, and a manifest that lists both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rsoup import manifest
from rsoup.errors import UsageError, show
from rsoup.publish.parcel import Item, Parcel
from rsoup.publish.results import Results, front_picture, joined, model_index, section
from rsoup.report import card
from rsoup.report.heritage import (
    LICENCE_KEYS,
    Card,
    base_models,
    inherited,
    licence_of,
    licences_of,
    stated,
)

NOTHING: Final[Mapping[str, Any]] = {}
_OF_A_SOUP: Final = ("rsoup", "base_model", "base_model_relation")
MEASURED: Final = "rsoup:measured"
"""The mark of the card's section on measured values."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The files as they are published, the card's metadata, what a reader should know; `stay` are pictures that are there."""

    items: Mapping[str, Item]
    metadata: Mapping[str, object] = field(repr=False)
    notes: tuple[str, ...]
    stay: tuple[str, ...] = ()


def publication(
    parcel: Parcel,
    repo: str,
    *,
    remote_card: str | None = None,
    remote_soup: Mapping[str, Mapping[str, Any]] = NOTHING,
    results: Results | None = None,
    license_: str | None = None,
    base_cards: Mapping[str, Card] = NOTHING,
) -> Publication:
    """A parcel with its card, the front's picture and a manifest that lists them.

    An existing card (`remote_card`) keeps its prose; its metadata and what stands between rsoup's own marks
    are brought up to date. `remote_soup` are the rows of the rsoup.json there. `base_cards` are the metadata of the base
    models' cards on the Hub, whose licence counts where the ingredients have none. Raises UsageError E0721 for licences that differ.
    """
    notes: list[str] = []
    local, own_prose = card.split(parcel.card or "")
    old, prose = card.split(remote_card) if remote_card is not None else ({}, own_prose)
    found = dict(local)
    _bases(found, parcel, notes)
    _license(found, old, license_, base_cards, notes)
    if tags := _tags(old, found, parcel):
        found["tags"] = tags
    if recipe := recipe_key(parcel):
        found["rsoup"] = recipe
    picture = None if results is None else front_picture(results.table)
    fresh = None
    if results is not None:
        tag = found.get("pipeline_tag")
        fresh = model_index(repo.partition("/")[2], results, str(tag) if tag else None)
    same = _recipe_of(old) is not None and _recipe_of(old) == _recipe_of(found)
    index, dropped = joined(old.get("model-index", found.get("model-index")), fresh, same_soup=same)
    if dropped:
        notes.append(
            "the card's results of an earlier soup are taken out: they are not this one's (--results RUN)"
        )
    if not same and "rsoup" in old:  # rsoup wrote these of another soup
        old = {key: value for key, value in old.items() if key not in _OF_A_SOUP}
    metadata = {**old, **found}
    metadata.pop("model-index", None)
    if index is not None:
        metadata["model-index"] = index
    if results is not None:
        prose = card.with_section(prose, MEASURED, section(results, None if picture is None else picture[0]))
    elif not same:
        prose = card.without_section(prose, MEASURED)
    if remote_card is not None:
        if parcel.claims is None and own_prose.strip() not in ("", prose.strip()):
            notes.append("the card on the Hub keeps its prose: that of this README.md is not published")
        prose = card.with_section(prose, card.SECTION, card.section(own_prose), append=False)
    added = [] if picture is None else [Item(picture[0], len(picture[1]), data=picture[1])]
    if metadata or prose:
        text = card.join(metadata, prose).encode("utf-8", "surrogateescape")
        added.insert(0, Item(card.NAME, len(text), data=text))
    stay = [name for name in card.PICTURES if same and results is None and name in remote_soup]
    if parcel.claims is not None:
        added.append(_manifest(parcel, added, [remote_soup[name] for name in stay]))
    return Publication(parcel.with_items(added).items, metadata, tuple(notes), tuple(stay))


def _bases(found: dict[str, object], parcel: Parcel, notes: list[str]) -> None:
    """base_model as names of the Hub alone: the ingredients' where the manifest knows them, else the card's."""
    good = stated(found)
    lost = set(map(str, card.as_list(found.get("base_model")))) - set(good)
    is_adapter = found.get("base_model_relation") == "adapter" or "adapter_config.json" in parcel.items
    if parcel.claims is not None and not is_adapter:
        rows = parcel.claims.value["ingredients"]
        pinned = [row["checkpoint"] for row in rows if "@" in row["checkpoint"]]
        good = base_models([*((one, card.NO_CARD) for one in pinned), ("", {"base_model": good})])
    if lost:
        notes.append("base_model keeps names of the Hub only: what lay on this machine is left out")
    found.pop("base_model", None)
    found.pop("base_model_relation", None)
    if good:
        found["base_model"] = good if len(good) > 1 else good[0]
        if is_adapter or parcel.claims is not None:
            found["base_model_relation"] = "adapter" if is_adapter else "merge"


def _tags(old: Mapping[str, object], found: Mapping[str, object], parcel: Parcel) -> list[object]:
    """The tags of both cards, and of a soup those it is found by."""
    ours: list[object] = []
    if parcel.claims is not None:
        ours = ["merge", "rsoup", "rewarded-soup"]
        if "adapter_config.json" in parcel.items:
            ours.insert(0, "lora")
    both = [tag for tags in (old.get("tags"), found.get("tags"), ours) for tag in card.as_list(tags)]
    return list(dict.fromkeys(tag for tag in both if isinstance(tag, str) and not _names_a_path(tag)))


def _names_a_path(tag: str) -> bool:
    """Whether this is PEFT's tag of a base that lay on somebody's disk: `base_model:adapter:/home/…`."""
    kind, _, name = tag.rpartition(":")
    return kind.startswith("base_model") and (name.startswith(("/", ".", "~")) or "\\" in name)


def _license(
    found: dict[str, object],
    old: dict[str, object],
    asked: str | None,
    bases: Mapping[str, Card],
    notes: list[str],
) -> None:
    """The licence that was asked for; else the one all agree on; else the base's, and said so; else the old card's."""
    for one in (found, old):
        one.pop("licence", None)  # as TRL spells its placeholder
    marks = found.get("rsoup")
    different = marks.get("licenses") if isinstance(marks, dict) else None
    own, there = licences_of([found]), licence_of(old)
    for key in LICENCE_KEYS:
        found.pop(key, None)
    given = inherited(own, licences_of(bases.values()), asked)
    if asked is None and isinstance(different, list) and len(different) > 1:
        raise differ("the ingredients' licences differ", different)
    if given.differ:
        raise differ("the base models' licences differ", given.differ)
    if given.note is not None:
        notes.append(given.note)
    chosen = given.licence or there
    if asked is None and there is not None and chosen != there:
        raise differ("the card on the Hub and the soup have different licences", (there, chosen))
    if chosen is None:
        notes.append("the card names no licence: nobody is allowed to use the model (--license ID)")
        return
    found |= chosen.fields()
    for key in LICENCE_KEYS:
        if key not in found:
            old.pop(key, None)  # it is of another licence


def differ(what: str, licences: Iterable[object]) -> UsageError:
    """The refusal of licences between which nobody has chosen."""
    shown = ", ".join(show(one) for one in dict.fromkeys(licences))
    return UsageError(
        "E0721", f"{what}: {shown}", hint="decide which may be given on, and say so: --license ID"
    )


def recipe_key(parcel: Parcel) -> dict[str, object] | None:
    """The recipe for the card's `rsoup:` key: λ by ingredient, each pinned by its commit or its content's digest."""
    if parcel.claims is None:
        return None
    value, canonical = parcel.claims.value, parcel.claims.canonical
    rows: list[dict[str, object]] = []
    shares = {
        str(one["name"]): str(one["lambda"]) for one in canonical["ingredients"] if isinstance(one, dict)
    }
    for row in value["ingredients"]:
        one: dict[str, object] = {"name": row["name"], "checkpoint": row["checkpoint"]}
        if row["content"] is not None:
            one["content"] = row["content"]
        if row["name"] in shares:
            one["lambda"] = shares[row["name"]]
        rows.append(one)
    found: dict[str, object] = {
        "recipe": parcel.claims.recipe_sha256,
        "method": canonical["method"],
        "lambda": shares,
    }
    if str(canonical.get("scale", "1")) != "1":
        found["scale"] = str(canonical["scale"])
    base = value["base"]
    if base is not None:
        found["base"] = base["checkpoint"]
    found["ingredients"] = rows
    return found


def _recipe_of(metadata: Mapping[str, object]) -> object:
    """The hash of the recipe that a card is about."""
    about = metadata.get("rsoup")
    return about.get("recipe") if isinstance(about, dict) else None


def _manifest(parcel: Parcel, added: list[Item], stay: Sequence[Mapping[str, Any]]) -> Item:
    """The manifest as it is published: the files that are written for the Hub, or stay there, listed as they are there."""
    fresh: dict[str, Mapping[str, Any]] = {item.name: _subject(item) for item in added}
    fresh |= {str(row["name"]): row for row in stay}
    assert parcel.claims is not None
    value = parcel.claims.value
    rows = [fresh.pop(row["name"], row) for row in value["subject"]]
    data = manifest.encode({**value, "subject": [*rows, *fresh.values()]})
    return Item(parcel.manifest, len(data), data=data)


def _subject(item: Item) -> dict[str, object]:
    return {"name": item.name, "size": item.nbytes, "sha256": item.sha256()}
