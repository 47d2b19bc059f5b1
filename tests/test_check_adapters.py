"""`rsoup check` of adapters: measured from their factors as dense float64 says, and every difference told as data."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from adapters import Made, Tensors, adapted_weights, base_weights, make, make_base
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import rsoup
from rsoup.cli.app import app
from rsoup.contents import fingerprint
from rsoup.errors import RsoupError, UsageError
from rsoup.family.adapters import AdapterMeasures, AdapterRow
from rsoup.family.checking import CheckResult
from rsoup.family.measures import group_of
from rsoup.family.verdict import MIXABLE, NOT_ONE, WITH_CARE
from rsoup.report.adapters import text
from rsoup.storage.checkpoint import open_checkpoint

EXACT = 1e-10


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tests of this module share; what they change they copy first."""
    return tmp_path_factory.mktemp("zoo")


def run(*arguments: str | Path) -> tuple[int, str]:
    """(exit code, stdout) of `rsoup check`."""
    result = CliRunner().invoke(app, ["check", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout


@contextlib.contextmanager
def refused(kind: type[RsoupError], code: str) -> Iterator[None]:
    """What is inside raises this error with this code."""
    with pytest.raises(kind) as error:
        yield
    assert error.value.code == code


def measures(result: CheckResult) -> AdapterMeasures:
    """The part of a result that is about adapters."""
    assert result.adapters is not None
    return result.adapters


def row(result: CheckResult, number: int = 0) -> AdapterRow:
    """What a result says of one adapter."""
    return measures(result).rows[number]


def variant(
    folder: Path,
    adapter: Path,
    change: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    **config: object,
) -> Path:
    """A copy of an adapter with other tensors, or other entries of its configuration."""
    shutil.copytree(adapter, folder)
    tensors = load_file(adapter / "adapter_model.safetensors")
    if change is not None:
        tensors = {key: change(key, value).contiguous() for key, value in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    if "base_model_name_or_path" in config:
        (folder / "README.md").unlink()  # PEFT's card names the base as well
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def scaled(factor: float) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """A change of an adapter that multiplies its update."""
    return lambda key, value: value * factor if "lora_B" in key else value


# --- The figures, held against dense matrices -------------------------------------------------------------------


def deltas(made: Made) -> list[Tensors]:
    """θ − θ₀ of every tensor that each adapter changes, by PEFT's own merge in float64."""
    base = base_weights(made.base)
    found = []
    for adapter in made.adapters:
        weights = adapted_weights(made.base, adapter, *made.kind.warns)
        moved = {name: weights[name] - base[name] for name in base}
        found.append({name: delta for name, delta in moved.items() if bool(delta.any())})
    return found


def inner(one: Tensors, other: Tensors) -> float:
    """⟨one, other⟩ over the tensors that both have."""
    return math.fsum(float((one[name] * other[name]).sum()) for name in one.keys() & other.keys())


def length(tensors: Tensors) -> float:
    """‖·‖ of several tensors as one vector."""
    return math.sqrt(inner(tensors, tensors))


def assert_dense(result: CheckResult, found: Sequence[Tensors], base: Tensors) -> None:
    """Norms, shares of the base and cosines are those of dense matrices, as a whole and by layer."""
    known = measures(result)
    assert known.total is not None
    for i, delta in enumerate(found):
        own = {name: base[name] for name in delta}
        assert known.rows[i].facts.norm == pytest.approx(length(delta), rel=EXACT)
        assert known.rows[i].relative == pytest.approx(length(delta) / length(own), rel=EXACT)
        for j, other in enumerate(found):
            cosine = inner(delta, other) / length(delta) / length(other)
            assert known.cosine[i][j] == pytest.approx(cosine, abs=EXACT)
        for part in known.layers:
            inside = {name: value for name, value in delta.items() if group_of(name) == part.name}
            assert (part.absolute[i] or 0.0) == pytest.approx(length(inside), rel=EXACT)
            if inside:
                under = length({name: base[name] for name in inside})
                assert part.relative[i] == pytest.approx(length(inside) / under, rel=EXACT)


@pytest.mark.parametrize(
    "kind",
    ["plain", "alpha-r", "rslora", "mixed-rslora", "patterns", "ranks", "targets", "gpt2", "bf16", "embed", "conv",
     "moe-mixtral", "moe-qwen3", "moe-list", "adalora", "dora", "dora-lora", "dora-rslora", "dora-gpt2"],
)  # fmt: skip
def test_figures_are_those_of_dense_matrices(zoo: Path, kind: str) -> None:
    """‖ΔW‖, ‖ΔW‖/‖W‖ and cosines, total and by layer, equal PEFT's merge of each adapter to 1e-10."""
    made = make(kind, zoo)

    result = rsoup.check(list(made.adapters), made.base)

    assert result.mismatches == ()
    assert_dense(result, deltas(made), base_weights(made.base))


@pytest.mark.parametrize("kind", ["pissa", "olora", "pissa-lora"])
def test_beginnings_are_taken_off(zoo: Path, kind: str) -> None:
    """PiSSA and OLoRA: ΔW = s·(BA − B₀A₀), with B₀A₀ out of a dense decomposition of the base in float64."""
    made = make(kind, zoo)
    base = base_weights(made.base)

    result = rsoup.check(list(made.adapters), made.base)

    assert_dense(result, [without_beginning(base, adapter) for adapter in made.adapters], base)


def without_beginning(base: Tensors, adapter: Path) -> Tensors:
    """s·(BA − B₀A₀) of an adapter of rank 4 with s = 2; B₀A₀ is nothing for a plain one."""
    init = json.loads((adapter / "adapter_config.json").read_text())["init_lora_weights"]
    stored = {k: v.double() for k, v in load_file(adapter / "adapter_model.safetensors").items()}
    found: Tensors = {}
    for key, value in stored.items():
        if key.endswith("lora_A.weight"):
            name = key.removeprefix("base_model.model.").removesuffix("lora_A.weight") + "weight"
            product = 2 * stored[key.replace("lora_A", "lora_B")] @ value
            if init == "pissa":
                u, s, v = torch.linalg.svd(base[name], full_matrices=False)
                product -= (u[:, :4] * s[:4]) @ v[:4]
            elif init == "olora":
                q, r = torch.linalg.qr(base[name])
                product -= 2 * q[:, :4] @ r[:4]
            found[name] = product
    return found


def test_singular_values_are_those_of_dense_matrices(zoo: Path) -> None:
    """The largest singular value of any module, and the median of ‖ΔW‖²/σ₁², equal a dense SVD's."""
    made = make("ranks", zoo)

    result = rsoup.check(list(made.adapters), made.base)

    for i, delta in enumerate(deltas(made)):
        values = [torch.linalg.svdvals(value) for value in delta.values()]
        stable = sorted(float((v * v).sum() / v[0] ** 2) for v in values)
        assert row(result, i).sigma == pytest.approx(max(float(v[0]) for v in values), rel=EXACT)
        assert row(result, i).stable_rank == pytest.approx((stable[1] + stable[2]) / 2, rel=EXACT)


def test_a_plain_adapter_beside_dora_has_singular_values(zoo: Path) -> None:
    """σ₁ is known of LoRA's low-rank updates, whoever shares their modules, and not of DoRA's."""
    made = make("dora-lora", zoo)

    result = rsoup.check(list(made.adapters), made.base)

    largest = max(float(torch.linalg.svdvals(value)[0]) for value in deltas(made)[1].values())
    assert row(result, 0).sigma is None
    assert row(result, 1).sigma == pytest.approx(largest, rel=EXACT)


def factors(adapter: Path, kind: str) -> dict[str, torch.Tensor]:
    """The A or the B of every module, in float64."""
    stored = load_file(adapter / "adapter_model.safetensors")
    return {key.replace(kind, ""): value.double() for key, value in stored.items() if kind in key}


def test_factors_are_compared_as_stored(zoo: Path) -> None:
    """The cosines of A and B are means over modules; the average of factors is as far from the soup as dense says."""
    made = make("plain", zoo)

    found = measures(rsoup.check(list(made.adapters), made.base))

    for kind, cosine in (("lora_A", found.a_cosine), ("lora_B", found.b_cosine)):
        one, two = (factors(adapter, kind) for adapter in made.adapters)
        each = [float((one[k] * two[k]).sum() / one[k].norm() / two[k].norm()) for k in one]
        assert cosine[0][1] == pytest.approx(math.fsum(each) / len(each), abs=EXACT)
    (a1, b1), (a2, b2) = ((factors(p, "lora_A"), factors(p, "lora_B")) for p in made.adapters)
    soup = {k: b1[k] @ a1[k] + b2[k] @ a2[k] for k in a1}  # s = 2, λ = 1/2
    gap = {k: (b1[k] + b2[k]) @ (a1[k] + a2[k]) / 2 - soup[k] for k in a1}
    assert found.factors_distance == pytest.approx(length(gap) / length(soup), rel=EXACT)


def test_one_beginning_is_told_from_two(zoo: Path, tmp_path: Path) -> None:
    """Adapters with one A, barely trained: one beginning, and the average of factors is near the soup."""
    made = make("plain", zoo)
    noise = torch.Generator().manual_seed(1)
    near = variant(
        tmp_path / "near", made.adapters[0],
        lambda key, value: value + torch.randn(value.shape, generator=noise) * value.std() * (0.1 if "lora_A" in key else 1),
    )  # fmt: skip

    one = rsoup.check([made.adapters[0], near])
    two = rsoup.check(list(made.adapters))

    assert measures(one).a_cosine[0][1] == pytest.approx(1.0, abs=0.02)
    assert measures(two).a_cosine[0][1] == pytest.approx(0.0, abs=0.1)
    assert "one beginning" in text(one)
    assert "different beginnings" in text(two)
    distances = [measures(result).factors_distance for result in (one, two)]
    assert distances[0] is not None
    assert distances[1] is not None
    assert distances[0] < 0.1 < distances[1]


@pytest.mark.parametrize("kind", ["ranks", "targets", "pissa", "dora", "mixed-rslora"])
def test_what_has_no_average_of_factors_says_so(zoo: Path, kind: str) -> None:
    """Where --method factors refuses, no distance is told."""
    made = make(kind, zoo)

    result = rsoup.check(list(made.adapters), made.base)

    assert measures(result).factors_distance is None
    assert "--method factors refuses them" in text(result)


def test_what_is_no_copy_of_the_base(zoo: Path, tmp_path: Path) -> None:
    """The residual that PiSSA left of a head, and a soup of two heads, do not tell of another base."""
    made, heads = make("pissa-head", zoo), make("head-lora", zoo)
    recipe = rsoup.make_recipe(list(heads.adapters), uniform=True, base=heads.base)
    rsoup.merge(recipe, tmp_path / "soup")

    for adapters in (made.adapters, (tmp_path / "soup", heads.adapters[1])):
        assert not rsoup.check(list(adapters), made.base).mismatches


def test_threads_change_no_bit(zoo: Path) -> None:
    """One thread or three: the same figures."""
    made = make("dora-lora", zoo)

    one, three = (measures(rsoup.check(list(made.adapters), made.base, threads=n)) for n in (1, 3))

    assert one == three


def test_facts_of_a_configuration(zoo: Path) -> None:
    """Kinds, ranks, scalings, parameters and what is stored whole, as PEFT's configurations say."""
    found = {
        kind: row(rsoup.check([make(kind, zoo).adapters[0]]))
        for kind in ("patterns", "rslora", "dora", "head-one")
    }

    assert [r.facts.kind for r in found.values()] == ["LoRA", "rsLoRA", "DoRA", "LoRA"]
    assert found["patterns"].facts.ranks == (2, 6)
    assert found["rslora"].facts.scalings == (4.0, 4.0)
    stored = load_file(make("dora", zoo).adapters[0] / "adapter_model.safetensors")
    assert found["dora"].parameters == sum(value.numel() for value in stored.values())
    assert found["head-one"].replaces == ("lm_head.weight",)


# --- Without a base ---------------------------------------------------------------------------------------------


def hubbed(tmp_path: Path, made: Made, **config: object) -> list[Path]:
    """Copies of adapters that name a base on the Hub."""
    named: dict[str, object] = {"base_model_name_or_path": "org/base", **config}
    return [variant(tmp_path / p.name, p, **named) for p in made.adapters]


def test_without_a_base_norms_and_cosines_are_known(zoo: Path, tmp_path: Path) -> None:
    """‖ΔW‖ and cosines of plain LoRA need no base; shares of the base's norm do, and no limit is held against them."""
    made = make("plain", zoo)

    result = rsoup.check(hubbed(tmp_path, made))
    based = measures(rsoup.check(list(made.adapters), made.base))

    assert result.verdict.word == MIXABLE
    assert (result.base, row(result).relative) == (None, None)
    assert measures(result).cosine == based.cosine
    assert row(result).facts.norm == based.rows[0].facts.norm
    assert any("give it with --base: it is org/base" in note for note in result.notes)
    assert "‖ΔW‖ by layer" in text(result)


def test_without_a_base_what_depends_on_it_is_unknown(zoo: Path, tmp_path: Path) -> None:
    """DoRA and PiSSA: no norm and no cosine, and a note that says what would give them."""
    paths = [hubbed(tmp_path / kind, make(kind, zoo))[0] for kind in ("dora", "pissa")]

    result = rsoup.check({"dora": paths[0], "pissa": paths[1]})

    assert [r.facts.norm for r in measures(result).rows] == [None, None]
    assert measures(result).cosine == ((None, None), (None, None))
    assert measures(result).a_cosine[0][1] is not None
    assert any("'dora' and 'pissa' change depends on the base" in note for note in result.notes)


def test_the_base_that_adapters_name_is_used(zoo: Path) -> None:
    """A local folder in `base_model_name_or_path` is the base, and a note says so."""
    made = make("plain", zoo)

    result = rsoup.check(list(made.adapters))

    assert (result.base, result.found_base) == (str(made.base), True)
    assert row(result).relative is not None


def test_a_base_that_nobody_names_needs_care(zoo: Path, tmp_path: Path) -> None:
    """Adapters without a base's name are mixable with care; a base that fits answers it."""
    made = make("plain", zoo)
    paths = hubbed(tmp_path, made, base_model_name_or_path=None)

    assert [(r.measure, r.verdict) for r in rsoup.check(paths).verdict.reasons] == [("base", WITH_CARE)]
    assert rsoup.check(paths, made.base).verdict.word == MIXABLE


# --- The base ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["base_model_name_or_path", "revision"])
def test_other_bases_are_mismatches(zoo: Path, tmp_path: Path, field: str) -> None:
    """Other names or revisions of the base: not one family, unless --allow base says that they are one model."""
    made = make("plain", zoo)
    paths = [
        variant(tmp_path / f"{i}", p, **{"base_model_name_or_path": "org/base", field: f"org/{i}"})
        for i, p in enumerate(made.adapters)
    ]

    result = rsoup.check(paths)

    assert result.verdict.word == NOT_ONE
    assert [m.kind for m in result.mismatches] == ["base"]
    assert "org/0" in result.mismatches[0].what
    assert run(*paths)[0] == 3
    assert run(*paths, "--allow", "base", "-q") == (0, f"{MIXABLE}\n")


def test_a_base_that_does_not_fit_is_a_mismatch(zoo: Path, tmp_path: Path) -> None:
    """Every adapter that does not fit the base is told; what needs no base is measured all the same."""
    made = make("plain", zoo)
    other = make_base(tmp_path / "other", hidden_size=48, num_attention_heads=6)

    result = rsoup.check(list(made.adapters), other)

    assert [m.kind for m in result.mismatches] == ["base", "base"]
    assert "'one' does not fit this base: 4 of its 4 updates have no place in it" in result.mismatches[0].what
    assert "the update is 32 × 32" in result.mismatches[0].what
    assert row(result).facts.norm is not None
    assert row(result).relative is None
    assert run(*made.adapters, "--base", other)[0] == 3


def test_adapters_of_other_shapes_are_one_mismatch_each(zoo: Path, tmp_path: Path) -> None:
    """Modules of another size are grouped by what differs, and every name is in the data."""
    made = make("plain", zoo)
    wide = variant(
        tmp_path / "wide", made.adapters[0],
        lambda key, value: torch.cat([value, value], dim=1) if "lora_A" in key else value,
        base_model_name_or_path="org/base",
    )  # fmt: skip

    result = rsoup.check({"one": hubbed(tmp_path, made)[0], "wide": wide})

    assert [(m.kind, len(m.tensors)) for m in result.mismatches] == [("shape", 2), ("shape", 2)]
    assert (
        "2 updates of another shape, it is 32 × 32 in 'one' and 32 × 64 in 'wide'"
        in result.mismatches[0].what
    )
    assert result.verdict.word == NOT_ONE


@pytest.mark.parametrize("kind", ["embed", "lm-head", "lm-head-tied"])
def test_copies_of_the_base_prove_it(zoo: Path, tmp_path: Path, kind: str) -> None:
    """Adapters that bring the base's embeddings along: the same base is proved, another one is a mismatch."""
    made = make(kind, zoo)
    other = make_base(tmp_path / "other", made.kind.arch, seed=1)

    same = rsoup.check(list(made.adapters), made.base)
    wrong = rsoup.check(list(made.adapters), other)

    assert [r.on_base for r in measures(same).rows] == [True, True]
    assert any("was saved on this base" in note for note in same.notes)
    assert [r.on_base for r in measures(wrong).rows] == [False, False]
    assert [m.kind for m in wrong.mismatches] == ["base", "base"]
    assert "'one' was saved on another base" in wrong.mismatches[0].what
    assert wrong.verdict.word == NOT_ONE
    assert [r.on_base for r in measures(rsoup.check([make("plain", zoo).adapters[0]])).rows] == [None]


def test_a_base_in_another_dtype_is_still_the_base(zoo: Path, tmp_path: Path) -> None:
    """A copy in float32 of a base that is stored in bfloat16 equals it; a resized vocabulary proves nothing."""
    made = make("embed", zoo)
    half = tmp_path / "half"
    shutil.copytree(made.base, half)
    weights = load_file(made.base / "model.safetensors")
    save_file({k: v.bfloat16() for k, v in weights.items()}, half / "model.safetensors", {"format": "pt"})
    resized = make("resized-embed", zoo)

    assert row(rsoup.check([made.adapters[0]], half)).on_base is True
    assert row(rsoup.check([resized.adapters[0]], resized.base)).on_base is None


def test_a_manifest_proves_the_base(zoo: Path, tmp_path: Path) -> None:
    """The digest of the base in rsoup's own manifest beside an adapter is compared with the base."""
    made = make("plain", zoo)
    source = open_checkpoint(str(made.base))
    digest = fingerprint(source)
    source.close()
    found = {}
    for name, content in (("same", digest), ("other", "00" * 32), ("none", None), ("broken", "{")):
        folder = variant(tmp_path / name, made.adapters[0])
        manifest = {"digest": "rsoup-digest/1", "base": {"checkpoint": "base", "content": content}}
        (folder / "rsoup.json").write_text("{" if name == "broken" else json.dumps(manifest))
        found[name] = folder

    result = rsoup.check(found, made.base)

    assert [r.on_base for r in measures(result).rows] == [True, False, None, None]
    assert [m.what for m in result.mismatches] == [
        "'other' was saved on another base: rsoup.json holds another digest of it"
    ]


# --- The verdict ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factor", "word"), [(1, MIXABLE), (3, WITH_CARE), (9, NOT_ONE)])
def test_large_updates_need_care(zoo: Path, tmp_path: Path, factor: float, word: str) -> None:
    """‖ΔW‖/‖W‖ beyond 0.2 is care, beyond 0.7 no family; without a base there is nothing to hold it against."""
    made = make("plain", zoo)
    path = variant(tmp_path / "one", made.adapters[0], scaled(factor), base_model_name_or_path="org/base")

    result = rsoup.check([path], made.base)

    assert result.verdict.word == word
    assert {reason.measure for reason in result.verdict.reasons} <= {"distance", "layer"}
    assert rsoup.check([path]).verdict.word == MIXABLE
    assert rsoup.check([path], made.base, care=5, max_distance=9).verdict.word == MIXABLE


def test_one_large_layer_needs_care(zoo: Path, tmp_path: Path) -> None:
    """A layer beyond the limit is told where the whole is not."""
    made = make("plain", zoo)
    path = variant(
        tmp_path / "one", made.adapters[0],
        lambda key, value: value * 6 if "layers.1." in key and "lora_B" in key else value,
    )  # fmt: skip

    reasons = rsoup.check([path], made.base).verdict.reasons

    assert [(r.measure, r.verdict) for r in reasons] == [("distance", WITH_CARE), ("layer", WITH_CARE)]
    assert "layer 1" in reasons[1].what


def test_opposed_updates_need_care(zoo: Path, tmp_path: Path) -> None:
    """An adapter and its negative undo each other."""
    made = make("plain", zoo)
    back = variant(tmp_path / "back", made.adapters[0], scaled(-1))

    result = rsoup.check([made.adapters[0], back])

    assert measures(result).cosine[0][1] == pytest.approx(-1.0, abs=EXACT)
    assert [(r.measure, r.verdict) for r in result.verdict.reasons] == [("cosine", WITH_CARE)]
    assert run(made.adapters[0], back)[0] == 0
    assert run(made.adapters[0], back, "--strict")[0] == 3


def test_an_untrained_adapter_needs_care(zoo: Path, tmp_path: Path) -> None:
    """All B zero: norm 0, no cosine, named."""
    made = make("plain", zoo)
    path = variant(tmp_path / "idle", made.adapters[0], scaled(0))

    result = rsoup.check([path, made.adapters[1]], made.base)

    assert [(r.measure, r.checkpoint) for r in result.verdict.reasons] == [("untrained", "idle")]
    assert (row(result).untrained, row(result).facts.norm, row(result, 1).untrained) == (True, 0.0, False)
    assert measures(result).cosine[0] == (None, None)
    assert rsoup.check([make("head-one", zoo).adapters[0]]).verdict.word == MIXABLE


@pytest.mark.parametrize(
    ("kind", "part"),
    [("plain", "lora_A"), ("plain", "lora_B"), ("dora", "magnitude"), ("head-one", "lm_head")],
)
def test_what_is_not_finite_is_no_family(zoo: Path, tmp_path: Path, kind: str, part: str) -> None:
    """NaN and infinities anywhere in the file are named and counted; the other adapter is measured."""
    made = make(kind, zoo)
    broken = []

    def change(key: str, value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        if part in key and not broken:
            broken.append(key)
            value.reshape(-1)[:3] = torch.tensor([math.nan, math.inf, -math.inf])
        return value

    path = variant(tmp_path / "broken", made.adapters[0], change)

    result = rsoup.check([path, made.adapters[1]], made.base)

    worst = result.verdict.reasons[0]
    assert (worst.measure, worst.verdict, worst.value) == ("nonfinite", NOT_ONE, 3.0)
    assert measures(result).nonfinite == ((0, broken[0], 3),)
    assert row(result, 1).facts.norm is not None or kind == "dora"
    assert run(path, made.adapters[1])[0] == 3


@pytest.mark.parametrize("kind", ["pissa-niter", "kasa", "bdlora"])
def test_kinds_that_cannot_be_mixed_are_mismatches(zoo: Path, kind: str) -> None:
    """What merge refuses for its kind is told with its reason, and exits 3."""
    made = make(kind, zoo)

    result = rsoup.check({"one": made.adapters[0], "two": make("plain", zoo).adapters[0]})

    assert result.verdict.word == NOT_ONE
    assert [m.kind for m in result.mismatches] == ["adapter"]
    assert "'one': this adapter cannot be mixed" in result.mismatches[0].what
    assert "nothing was measured" in run(*made.adapters)[1]


# --- Headers, options, output -----------------------------------------------------------------------------------


def test_headers_read_no_factor_and_no_torch(zoo: Path, tmp_path: Path) -> None:
    """--headers tells kinds, ranks and bases, and whether they fit; torch is not loaded, NaN not seen."""
    made = make("embed", zoo)
    path = variant(tmp_path / "nan", made.adapters[0], lambda _, value: value * math.nan)
    code = (
        "import sys, rsoup.cli\n"
        f"sys.argv = ['rsoup', 'check', {str(path)!r}, {str(made.adapters[1])!r}, '--headers', '-q']\n"
        "try:\n    rsoup.cli.main()\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )

    result = rsoup.check([path, made.adapters[1]], made.base, headers=True)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert (result.verdict.word, result.read_nbytes, result.tensors) == (MIXABLE, 0, 5)
    assert row(result).facts.ranks == (4, 4)
    assert measures(result).total is None
    assert "headers alone" in text(result)
    assert done.stdout.splitlines() == [MIXABLE, "0 False"]
    other = make_base(tmp_path / "other", hidden_size=48, num_attention_heads=6)
    assert rsoup.check([path], other, headers=True).verdict.word == NOT_ONE


def test_dropped_tensors_are_not_measured(zoo: Path) -> None:
    """--drop leaves modules out of everything; a glob without a match is refused."""
    made = make("plain", zoo)
    names = [name for name in deltas(made)[0] if "q_proj" not in name]

    result = rsoup.check(list(made.adapters), made.base, drop=["*q_proj*"])

    assert_dense(result, [{name: d[name] for name in names} for d in deltas(made)], base_weights(made.base))
    assert row(result).facts.modules == 2
    with refused(UsageError, "E0209"):
        rsoup.check(list(made.adapters), made.base, drop=["v_head.*"])


def test_options_of_full_checkpoints_mean_nothing(zoo: Path) -> None:
    """--missing, --vocab and --key are refused; --fold without an adapter too."""
    made = make("plain", zoo)

    for option in ({"missing": "base"}, {"vocab": "pad"}, {"key": "model"}, {"variant": "fp16"}):
        with refused(UsageError, "E0206"):
            rsoup.check([made.adapters[0]], **option)  # type: ignore[arg-type]
    with refused(UsageError, "E0206"):
        rsoup.check([made.base], fold=True)


def test_json_of_adapters_is_documented(zoo: Path) -> None:
    """Every key of the document stands in docs/check.md, and the figures are those of the result."""
    made = make("targets", zoo)
    page = (Path(__file__).parent.parent / "docs" / "check.md").read_text(encoding="utf-8")

    def keys(value: object) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()

    found = json.loads(run(*made.adapters, "--base", made.base, "--json")[1])

    assert found["measures"] is None
    assert [key for key in sorted(keys(found)) if f"`{key}`" not in page] == []
    rows = found["adapters"]["rows"]
    assert [r["name"] for r in rows] == ["one", "two"]
    assert rows[0]["norm"] == row(rsoup.check(list(made.adapters), made.base)).facts.norm
    assert (found["adapters"]["modules"], found["adapters"]["shared"]) == (6, 2)


def test_ascii_terminals_get_ascii(zoo: Path) -> None:
    """Without Unicode the words of the table are ASCII."""
    made = make("plain", zoo)

    assert text(rsoup.check({"a": made.adapters[0], "b": made.adapters[1]}), unicode=False).isascii()


# --- Adapters as full checkpoints -------------------------------------------------------------------------------


def test_folded_adapters_are_measured_as_full_checkpoints(zoo: Path) -> None:
    """--fold measures θ − θ₀ over the whole model, heads included."""
    made = make("head-one", zoo)
    base = base_weights(made.base)

    result = rsoup.check(list(made.adapters), made.base, fold=True)

    assert result.adapters is None
    assert result.measures is not None
    assert result.measures.total is not None
    for i, delta in enumerate(deltas(made)):
        assert result.measures.total.absolute[i] == pytest.approx(length(delta), rel=EXACT)
        assert result.measures.total.relative[i] == pytest.approx(length(delta) / length(base), rel=EXACT)


def test_an_adapter_among_full_checkpoints_is_folded(zoo: Path, tmp_path: Path) -> None:
    """A fine-tune and an adapter are both full checkpoints; the adapter without a base is refused."""
    made = make("plain", zoo)
    full = tmp_path / "full"
    shutil.copytree(made.base, full)
    merged = adapted_weights(made.base, made.adapters[0])
    save_file({k: v.contiguous() for k, v in merged.items()}, full / "model.safetensors", {"format": "pt"})
    alone = variant(tmp_path / "alone", made.adapters[0], base_model_name_or_path="org/base")

    result = rsoup.check({"full": full, "one": made.adapters[0]}, made.base)

    assert result.measures is not None
    assert result.measures.cosine[0][1] == pytest.approx(1.0, abs=EXACT)
    assert result.measures.pair_absolute[0][1] == 0.0
    stacked = rsoup.check({"a": f"{made.base}+{made.adapters[0]}", "b": full}, made.base)
    assert stacked.verdict.word == MIXABLE
    assert rsoup.check({"full": full, "one": made.adapters[0]}).found_base
    with refused(UsageError, "E0207"):
        rsoup.check([full, alone])


def test_adapters_of_other_types_are_folded(zoo: Path, tmp_path: Path) -> None:
    """LoHa beside LoRA is measured on the base as PEFT merges it; without a base it is refused."""
    made, plain = make("loha", zoo), make("plain", zoo)
    alone = variant(tmp_path / "alone", made.adapters[0], base_model_name_or_path="org/base")

    result = rsoup.check({"loha": made.adapters[0], "lora": plain.adapters[0]}, made.base)

    assert result.measures is not None
    assert result.measures.total is not None
    for i, delta in enumerate((deltas(made)[0], deltas(plain)[0])):
        assert result.measures.total.absolute[i] == pytest.approx(length(delta), rel=1e-6)
    with refused(UsageError, "E0207"):
        rsoup.check([alone])


def test_a_folded_adapter_that_does_not_fit_is_a_mismatch(zoo: Path, tmp_path: Path) -> None:
    """Where an adapter cannot be put on the base, that is the verdict and no error."""
    made = make("plain", zoo)
    other = make_base(tmp_path / "other", hidden_size=48, num_attention_heads=6)

    result = rsoup.check(list(made.adapters), other, fold=True)

    assert result.verdict.word == NOT_ONE
    assert "does not fit this base" in result.mismatches[0].what
    assert "nothing was measured" in run(*made.adapters, "--base", other, "--fold")[1]
