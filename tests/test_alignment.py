"""Other names, missing tensors, longer vocabularies: brought together where that is certain or asked for, always said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints import CONFIG, Family, Tensors, from_torch, read_tensors, write_folder
from contracts import SourceContract
from hypothesis import given
from hypothesis import strategies as st
from refusals import header, refused, two, whats
from test_storage import in_memory

import rsoup as library
from rsoup.compat.alignment import aligned, matching_names
from rsoup.errors import IncompatibleError, UsageError
from rsoup.storage.protocols import Source
from rsoup.storage.views import Completed, Renamed, Rows

HALF = ["1/2", "1/2"]


def mean(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The float64 average, rounded once."""
    return ((one.double() + other.double()) / 2).to(one.dtype)


class TestRenamed(SourceContract):
    """A view with other names."""

    side_files = {}  # noqa: RUF012 - the contract's own form

    def open(self, name: str, tensors: Tensors) -> Source:
        """The source has every name with a prefix."""
        inner = in_memory({f"module.{key}": value for key, value in tensors.items()}, name)
        return Renamed(inner, {f"module.{key}": key for key in tensors})


class TestCompleted(SourceContract):
    """A view of a partial checkpoint, the rest from a base."""

    side_files = {}  # noqa: RUF012

    def open(self, name: str, tensors: Tensors) -> Source:
        """Every second tensor is the base's; the base has others under the names of the rest."""
        names = list(tensors)
        mine = {key: tensors[key] for key in names[::2]}
        base = {key: value if key not in mine else torch.zeros_like(value) for key, value in tensors.items()}
        return Completed(in_memory(mine, name), in_memory(base, "base"), names[1::2])


class TestRows(SourceContract):
    """A view with more rows, those of a donor."""

    side_files = {}  # noqa: RUF012

    def open(self, name: str, tensors: Tensors) -> Source:
        """The source lacks the last rows of every matrix, a donor has them and other first rows."""
        matrices = {key for key, value in tensors.items() if value.dim() == 2 and value.shape[0] > 1}
        mine = {key: value[:-1].contiguous() if key in matrices else value for key, value in tensors.items()}
        other = {key: torch.cat([torch.zeros_like(v[:-1]), v[-1:]]) if key in matrices else v for key, v in tensors.items()}  # fmt: skip
        rows = {key: tensors[key].shape[0] for key in matrices}
        return Rows(in_memory(mine, name), rows, in_memory(other, "donor"))


# --- names


@pytest.mark.fault("F7")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "module."),
        ("", "_orig_mod."),
        ("", "_orig_mod.module."),
        ("", "base_model.model."),
        ("model.", ""),
        ("model.language_model.", "language_model.model."),
    ],
)
def test_one_total_way_is_taken_and_said(tmp_path: Path, family: Family, old: str, new: str) -> None:
    """A soup of checkpoints that differ by one consistent prefix is the soup of the tensors they mean."""
    one, other = family.tuned
    sides = two(tmp_path, {old + n: t for n, t in one.items()}, {new + n: t for n, t in other.items()})

    result = library.merge(library.make_recipe(list(sides), mix=HALF), tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert soup.keys() == {old + name for name in one}
    assert all(torch.equal(soup[old + n], mean(one[n], other[n])) for n in one if one[n].is_floating_point())
    (note,) = [note for note in result.notes if "other names" in note]
    assert f"all {len(one)} of them" in note
    assert "'other'" in note


@pytest.mark.fault("F7")
def test_what_compile_and_fsdp_put_inside_names(family: Family) -> None:
    """`_orig_mod` and the wrappers of FSDP and checkpointing are seen through, wherever in a name they stand."""
    names = ["model.layers.0.weight", "model.layers.1.weight", "head.weight"]
    plain = header(**{name.replace(".", "__"): "F32 2" for name in names})
    wrapped = {
        "_fsdp_wrapped_module.model._orig_mod.layers.0.weight": plain[names[0]],
        "_fsdp_wrapped_module.model._orig_mod.layers.1._checkpoint_wrapped_module.weight": plain[names[1]],
        "_fsdp_wrapped_module.head.weight": plain[names[2]],
    }

    assert matching_names(wrapped, plain) == dict(zip(wrapped, names, strict=True))


@given(
    st.lists(st.sampled_from(["a", "b", "model"]), max_size=3),
    st.lists(st.sampled_from(["a", "c"]), max_size=3),
)
def test_prefixes_are_exchanged(old: list[str], new: list[str]) -> None:
    """For all prefixes p, q: p·n ↦ q·n is found for names n that nothing else explains."""
    names = ["x.weight", "y.weight", "z.0.weight"]
    mine = {f"{''.join(f'{part}.' for part in old)}{name}": header(w="F32 2")["w"] for name in names}
    theirs = {f"{''.join(f'{part}.' for part in new)}{name}": header(w="F32 2")["w"] for name in names}

    found = matching_names(mine, theirs)

    assert found == (None if old == new else dict(zip(mine, theirs, strict=True)))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"m.a": "F32 2", "m.b": "F32 2"}, {"a": "F32 2"}),  # one finds nothing
        ({"m.a": "F32 2"}, {"a": "F32 2", "b": "F32 2"}),  # one is not found
        ({"m.a": "F32 2", "m.b": "F32 3"}, {"a": "F32 2", "b": "F32 2"}),  # a shape differs
        ({"m.x.a": "F32 2"}, {"a": "F32 2", "x.a": "F32 2"}),  # nor here, though two could be meant
        ({"a": "F32 2", "b": "F32 2"}, {"c": "F32 2", "d": "F32 2"}),  # nothing in common
        ({}, {"a": "F32 2"}),
    ],
)
def test_nothing_is_mapped_by_halves(mine: dict[str, str], theirs: dict[str, str]) -> None:
    """Without one way for all tensors of both sides there is none."""
    ours, reference = ({n.replace(".", "__"): v for n, v in side.items()} for side in (mine, theirs))

    assert matching_names(header(**ours), header(**reference)) is None


def test_two_ways_are_none() -> None:
    """Names that fit in two ways, as a partial fine-tune may, are not guessed."""
    mine, theirs = header(m__a="F32 2"), header(x__a="F32 2", y__b="F32 2", a="F32 2")

    assert matching_names(mine, header(x__a="F32 2", x__b="F32 2"), partial=True) == {"m.a": "x.a"}
    assert matching_names(mine, theirs, partial=True) == {"m.a": "a"}


# --- partial fine-tunes


def test_what_a_partial_fine_tune_lacks_is_the_bases(tmp_path: Path, family: Family) -> None:
    """`--missing base`: lacking tensors are mixed as the base's own, counted and said; without it they are refused."""
    one, other = family.tuned
    part = {name: one[name] for name in ("layers.0.weight", "layers.0.bias")}
    sides = two(tmp_path, part, other)
    base = write_folder(tmp_path / "base", family.base)

    error = refused(tmp_path, *sides, base=base)
    recipe = library.make_recipe(list(sides), mix=HALF, base=base, missing="base")
    result = library.merge(recipe, tmp_path / "soup")

    assert "not in 'one'" in whats(error)
    soup, full = read_tensors(tmp_path / "soup"), {**family.base, **part}
    assert all(torch.equal(soup[n], mean(full[n], other[n])) for n in full if full[n].is_floating_point())
    assert any(
        f"'one' lacks {len(full) - 2} of {len(full)} tensors, which are the base's" in n for n in result.notes
    )
    assert result.manifest["recipe"]["canonical"]["missing"] == "base"  # type: ignore[index]


def test_a_prefix_and_missing_tensors_together(tmp_path: Path, family: Family) -> None:
    """A partial fine-tune of a wrapped model is renamed first and completed then."""
    one, other = family.tuned
    sides = two(tmp_path, {f"module.{n}": one[n] for n in ("layers.0.weight", "layers.0.bias")}, other)
    base = write_folder(tmp_path / "base", family.base)

    library.merge(library.make_recipe(list(sides), mix=HALF, base=base, missing="base"), tmp_path / "soup")

    name = "layers.0.weight"
    assert torch.equal(read_tensors(tmp_path / "soup")[name], mean(one[name], other[name]))


def test_missing_needs_a_base(two_models: list[str]) -> None:
    """There is nothing to complete from without a base."""
    with pytest.raises(UsageError) as error:
        library.make_recipe(two_models, mix=HALF, missing="base")

    assert error.value.code == "E0207"


# --- vocabularies


def vocabulary(rows: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensors:
    """Embeddings and a head of so many rows, and a matrix beside them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "model.embed_tokens.weight": torch.randn(rows, 8, generator=generator).to(dtype),
        "lm_head.weight": torch.randn(rows, 8, generator=generator).to(dtype),
        "model.layers.0.weight": torch.randn(8, 8, generator=generator).to(dtype),
    }


def sized(folder: Path, name: str, tensors: Tensors) -> Path:
    """A checkpoint whose config.json tells its vocabulary."""
    rows = tensors["lm_head.weight"].shape[0]
    return write_folder(folder / name, tensors, config={**CONFIG, "vocab_size": rows})


@pytest.mark.fault("F4")
def test_vocabularies_of_different_length_are_refused_in_words(tmp_path: Path) -> None:
    """By default rows that only one has are named and refused."""
    sides = sized(tmp_path, "one", vocabulary(10, 1)), sized(tmp_path, "other", vocabulary(12, 2))

    assert "rows 10 to 11 exist only in 'other'" in whats(refused(tmp_path, *sides))


@pytest.mark.fault("F4")
def test_truncate_cuts_to_the_shortest(tmp_path: Path) -> None:
    """`--vocab truncate`: the common rows are mixed, the others are left out, config.json tells the truth, a note which."""
    one, other = vocabulary(10, 1), vocabulary(12, 2)
    sides = [sized(tmp_path, "one", one), sized(tmp_path, "other", other)]

    recipe = library.make_recipe(sides, mix=HALF, vocab="truncate", files_from="other")
    result = library.merge(recipe, tmp_path / "soup")

    soup = read_tensors(tmp_path / "soup")
    assert all(torch.equal(soup[n], mean(one[n], other[n][: one[n].shape[0]])) for n in one)
    assert json.loads((tmp_path / "soup/config.json").read_text())["vocab_size"] == 10
    assert any(
        n.startswith("rows 10 to 11 of ") and n.endswith("of 'other' are cut off") for n in result.notes
    )


@pytest.mark.fault("F4")
@pytest.mark.parametrize("with_base", [False, True])
def test_pad_fills_up_from_the_base_or_whoever_has_the_rows(tmp_path: Path, with_base: bool) -> None:
    """`--vocab pad`: missing rows are the base's if it has them, else those of the first that does."""
    one, other, base = vocabulary(10, 1), vocabulary(12, 2), vocabulary(12, 3)
    sides = [sized(tmp_path, "one", one), sized(tmp_path, "other", other)]
    given = sized(tmp_path, "base", base) if with_base else None

    recipe = library.make_recipe(sides, mix=HALF, vocab="pad", base=given, allow=["distance"])
    result = library.merge(recipe, tmp_path / "soup")

    soup, donor = read_tensors(tmp_path / "soup"), base if with_base else other
    filled = {n: torch.cat([v, donor[n][10:]]) if v.shape[0] == 10 else v for n, v in one.items()}
    assert all(torch.equal(soup[n], mean(filled[n], other[n])) for n in one)
    assert json.loads((tmp_path / "soup/config.json").read_text())["vocab_size"] == 12
    assert any(
        f"which 'one' lacks, are those of '{'base' if with_base else 'other'}'" in n for n in result.notes
    )


def test_vocab_that_is_not_needed_is_refused(two_models: list[str], tmp_path: Path) -> None:
    """An option that would do nothing is not taken silently."""
    with pytest.raises(UsageError) as error:
        library.merge(library.make_recipe(two_models, mix=HALF, vocab="pad"), tmp_path / "soup")

    assert error.value.code == "E0216"


def test_rows_are_never_taken_across_dtypes() -> None:
    """A donor of another dtype is none: its bytes would mean other numbers."""
    one = from_torch("one", vocabulary(10, 1, torch.float32))
    other = from_torch("other", vocabulary(12, 2, torch.bfloat16))

    with pytest.raises(UsageError, match="in its dtype"):
        aligned([one, other], None, vocab="pad")


def test_other_shapes_stay_refused(tmp_path: Path) -> None:
    """`--vocab` touches vocabulary tensors only: another difference is refused as before."""
    other = vocabulary(12, 2) | {"model.layers.0.weight": torch.zeros(9, 8)}
    sides = [sized(tmp_path, "one", vocabulary(10, 1)), sized(tmp_path, "other", other)]

    with pytest.raises(IncompatibleError) as error:
        library.merge(library.make_recipe(sides, mix=HALF, vocab="truncate"), tmp_path / "soup")

    assert "'model.layers.0.weight' is [8, 8] and [9, 8]" in whats(error.value)
