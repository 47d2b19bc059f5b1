"""README.md of a soup: metadata the Hub understands, nobody's prose lost, nothing that breaks out of its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from checkpoints import write_folder
from conftest import Folders
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

import rsoup
from rsoup.report import card
from rsoup.report.heritage import Licence, inherited, licence_of


def made(folders: Folders, **options: object) -> Path:
    """A soup of the two fine-tunes against their base, made with these options of `make_recipe`."""
    recipe = rsoup.make_recipe(
        {"one": folders.one, "two": folders.two}, mix=["0.3", "0.7"], base=folders.base, **options
    )
    rsoup.merge(recipe, folders.root / "soup", overwrite=True)
    return folders.root / "soup" / "README.md"


def with_card(folder: Path, text: str) -> None:
    """Put a model card beside a checkpoint."""
    (folder / "README.md").write_text(text)


def test_the_hub_client_reads_the_card(base_and_two: Folders) -> None:
    """huggingface_hub parses the card, and finds its tags and library."""
    found = ModelCard.load(made(base_and_two)).data

    assert found.tags == ["merge", "rsoup", "rewarded-soup"]
    assert found.library_name == "transformers"
    assert found.base_model is None


def test_the_ingredients_cards_are_inherited_where_they_agree(base_and_two: Folders) -> None:
    """Base, pipeline, language and licence come from the ingredients' cards where all of them say the same."""
    for folder in (base_and_two.one, base_and_two.two):
        with_card(
            folder,
            "---\nbase_model: org/base\npipeline_tag: text-generation\nlicense: mit\n---\nprose of an expert",
        )

    path = made(base_and_two)
    found = ModelCard.load(path).data

    assert (found.base_model, found.pipeline_tag, found.license) == ("org/base", "text-generation", "mit")
    assert "prose of an expert" not in path.read_text()


def test_different_licences_are_not_chosen_from(base_and_two: Folders) -> None:
    """Where licences differ the card names none, and a note says so; --license decides."""
    with_card(base_and_two.one, "---\nlicense: mit\n---\n")
    with_card(base_and_two.two, "---\nlicense: apache-2.0\n---\n")
    recipe = rsoup.make_recipe([base_and_two.one, base_and_two.two], uniform=True)
    result = rsoup.merge(recipe, base_and_two.root / "undecided")

    assert any("licences differ" in note for note in result.notes)
    assert ModelCard.load(base_and_two.root / "undecided" / "README.md").data.license is None
    assert ModelCard.load(made(base_and_two, license="mit")).data.license == "mit"


def test_a_misspelt_licence_is_none(base_and_two: Folders) -> None:
    """`licence: license`, as TRL writes it, is no licence."""
    with_card(base_and_two.one, "---\nlicence: license\n---\n")

    assert ModelCard.load(made(base_and_two)).data.license is None


def test_the_prose_of_a_replaced_soup_stays(base_and_two: Folders) -> None:
    """--overwrite brings the metadata up to date and leaves every word below it."""
    path = made(base_and_two)
    prose = "\n# My soup\n\nIt tastes of λ.\n---\nnot metadata\n"
    path.write_text("---\nmine: 1\ntags: [soup-of-the-day]\n---\n" + prose)

    text = made(base_and_two).read_text()

    assert text.endswith(prose)
    assert card.split(text)[0]["mine"] == 1
    assert card.split(text)[0]["tags"] == ["soup-of-the-day", "merge", "rsoup", "rewarded-soup"]


def test_no_path_is_published(base_and_two: Folders) -> None:
    """Neither the card nor the manifest nor a weight file's header names a folder of this machine."""
    folder = made(base_and_two).parent
    for file in folder.iterdir():
        assert str(base_and_two.root).encode() not in file.read_bytes()


@pytest.mark.fault("B6")
@given(st.text(max_size=40), st.text(max_size=40))
def test_names_stay_in_their_cells(name: str, checkpoint: str) -> None:
    """An ingredient's name can neither begin metadata nor a new line nor another cell."""
    recipe = rsoup.make_recipe({f"a{name}": f"x/{checkpoint or 'y'}", "b": "z"}, uniform=True)
    found, _ = card.metadata(recipe, [], None)
    text = card.merged(None, found, card.body(recipe, None, None))
    rows = [line for line in card.split(text)[1].splitlines() if line.startswith("|")]

    assert card.split(text)[0] == found
    assert len(rows) == 4
    assert all(row.count("|") == 4 for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no metadata",
        "---\nnever closed",
        "---\n- a list\n---\nprose",
        "---\n: : :\n---\n",
        "---\n&a [*a]\n---\n",
    ],
)
def test_broken_metadata_is_prose(text: str) -> None:
    """A card whose metadata cannot be read is all prose, and is kept whole."""
    assert card.split(text) == ({}, text)


@given(st.dictionaries(st.text(min_size=1), st.text() | st.lists(st.text()), max_size=4), st.text())
def test_split_undoes_join(metadata: dict[str, object], prose: str) -> None:
    """split(join(m, p)) = (m, p) for everything that YAML itself gives back."""
    try:
        plain = yaml.safe_load(yaml.safe_dump(metadata, allow_unicode=True)) == metadata
    except yaml.YAMLError:
        return
    joined = card.join(metadata, prose)

    if plain and metadata and not any(key.startswith("---") for key in metadata):
        assert card.split(joined) == (metadata, prose)


def test_a_diffusers_component_names_its_library(tmp_path: Path, base_and_two: Folders) -> None:
    """The library is taken from what config.json says of itself."""
    config = {"_class_name": "UNet", "_diffusers_version": "0.35.0"}
    one = write_folder(tmp_path / "unet-1", base_and_two.family.tuned[0], config=config)
    two = write_folder(tmp_path / "unet-2", base_and_two.family.tuned[1], config=config)
    rsoup.merge(rsoup.make_recipe([one, two], uniform=True), tmp_path / "unet")

    assert ModelCard.load(tmp_path / "unet" / "README.md").data.library_name == "diffusers"


def test_each_ingredient_is_named_by_what_is_known_of_it(base_and_two: Folders) -> None:
    """What lay on a disk is named by its card's base models, one or several, in order and once; paths are not."""
    with_card(base_and_two.one, "---\nbase_model: [org/other, org/base]\n---\n")
    with_card(base_and_two.two, f"---\nbase_model:\n- org/base\n- {base_and_two.base}\n---\n")
    found = ModelCard.load(made(base_and_two)).data

    assert found.base_model == ["org/other", "org/base"]
    assert found.base_model_relation == "merge"


def test_the_bases_licence_is_inherited_where_there_is_no_other(base_and_two: Folders) -> None:
    """No ingredient names a licence: the base's, with its name and link, and a note says so."""
    with_card(base_and_two.base, "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n")
    recipe = rsoup.make_recipe(
        [base_and_two.one, base_and_two.two], uniform=True, base=base_and_two.base, dtype="float32"
    )
    result = rsoup.merge(recipe, base_and_two.root / "inherits")
    found = card.split((base_and_two.root / "inherits" / "README.md").read_text())[0]

    assert (found["license"], found["license_name"], found["license_link"]) == ("other", "mine", "LICENSE")
    assert any("the licence is the base model's: other (mine)" in note for note in result.notes)


LICENCES = st.builds(Licence, st.tuples(st.sampled_from(["mit", "other"])), st.sampled_from([None, "x", "y"]))


@given(st.lists(LICENCES, max_size=3, unique=True), st.lists(LICENCES, max_size=2, unique=True))
def test_a_licence_is_inherited_or_nobody_chose(own: list[Licence], bases: list[Licence]) -> None:
    """One licence is inherited; the bases' counts where the ingredients have none; of several none is chosen; what is asked for is."""
    found, count = inherited(own, bases, None), len(own) or len(bases)

    assert (found.licence is not None) == (count == 1)
    assert len(found.differ) == (count if count > 1 else 0)
    assert found.licence is None or found.licence in (own or bases)
    assert inherited(own, bases, "apache-2.0").licence == Licence(("apache-2.0",))


def test_a_card_says_its_licence_in_any_form() -> None:
    """A text, a list, a placeholder, another spelling of case; `other` is told apart by its name."""
    assert licence_of({"license": ["MIT"]}) == licence_of({"license": "mit"}) == Licence(("mit",))
    assert licence_of({"license": "license"}) is licence_of({"license": []}) is licence_of({}) is None
    both = licence_of({"license": ["mit", "apache-2.0"]})
    assert both is not None
    assert both.fields() == {"license": ["mit", "apache-2.0"]}
    assert licence_of({"license": "other", "license_name": "a"}) != licence_of({"license": "other"})
