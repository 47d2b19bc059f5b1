"""What config.json says of the meaning of the weights is compared, and nothing else refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import CONFIG, Family, write_folder
from refusals import refused, whats

import rsoup as library
from rsoup.compat.config import compare_configs
from rsoup.errors import RefusedFileError

SEMANTIC = {
    "rope_theta": (10000.0, 500000.0),
    "hidden_act": ("silu", "gelu"),
    "rms_norm_eps": (1e-5, 1e-6),
    "num_attention_heads": (4, 8),
    "num_key_value_heads": (4, 8),
    "final_logit_softcapping": (None, 30.0),
    "sliding_window": (None, 4096),
    "tie_word_embeddings": (False, True),
    "rope_scaling": (None, {"rope_type": "yarn", "factor": 4.0}),
    "rope_parameters": (
        {"rope_theta": 1e4, "rope_type": "default"},
        {"rope_theta": 1e4, "rope_type": "llama3", "factor": 8.0},
    ),
    "layer_types": (["full_attention"], ["sliding_attention"]),
    "norm_topk_prob": (True, False),
    "model_type": ("llama", "mistral"),
    "architectures": (["A"], ["B"]),
    "id2label": ({"0": "neg", "1": "pos"}, {"0": "pos", "1": "neg"}),
    "hidden_size": (64, 128),
}


@pytest.mark.fault("F13")
@pytest.mark.parametrize("key", SEMANTIC)
@pytest.mark.parametrize("inside", ["", "text_config"])
def test_what_changes_the_meaning_of_weights_is_refused(key: str, inside: str) -> None:
    """A meaningful key of config.json with two values is a mismatch that names key and both values."""
    one, other = ({inside: {key: value}} if inside else {key: value} for value in SEMANTIC[key])

    found, notes = compare_configs({"a": one, "b": other})

    assert [mismatch.kind for mismatch in found] == ["config"]
    assert "in 'a' and " in found[0].what
    assert not notes


@pytest.mark.fault("F13")
def test_config_differences_are_refused_or_allowed(tmp_path: Path, family: Family) -> None:
    """Every meaningful difference is listed at once; --allow config turns them into notes."""
    a = write_folder(
        tmp_path / "a", family.tuned[0], config={**CONFIG, "rope_theta": 1e4, "hidden_act": "silu"}
    )
    b = write_folder(
        tmp_path / "b", family.tuned[1], config={**CONFIG, "rope_theta": 1e6, "hidden_act": "relu"}
    )

    error = refused(tmp_path, a, b)

    assert [problem.where for problem in error.details] == ["config", "config"]
    assert "rope_theta is 10000.0 in 'a' and 1000000.0 in 'b'" in whats(error)
    assert error.hint == "if you know that this does not matter: --allow config"
    recipe = library.make_recipe([a, b], uniform=True, allow=["config"])
    assert sum(note.startswith("allowed: ") for note in library.merge(recipe, tmp_path / "soup").notes) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"use_cache": True, "transformers_version": "4.50", "torch_dtype": "bfloat16"}, {"use_cache": False, "transformers_version": "5.23", "dtype": "float32"}),
        ({"rope_theta": 1e4, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
        (
            {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "factor": 8.0}},
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}},
        ),
        (
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None},
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}},
        ),
        (
            {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28},
            {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 21},
        ),
        ({"attention_dropout": 0.0, "router_aux_loss_coef": 0.1}, {"attention_dropout": 0.1, "router_aux_loss_coef": 0.2}),
        ({"head_dim": None}, {}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_not_a_word(one: dict[str, object], other: dict[str, object]) -> None:
    """Cosmetic keys, the spellings of transformers 4 and 5 and switched-off settings are neither refused nor noted."""
    assert compare_configs({"a": one, "b": other}) == ([], [])


def test_unknown_and_one_sided_keys_are_notes() -> None:
    """A key rsoup does not know, or that only one side writes, refuses nothing; the reader is told."""
    found, notes = compare_configs(
        {"a": {"foo": 1, "hidden_act": "silu"}, "b": {"foo": 2, "max_position_embeddings": 5}, "c": None}
    )

    assert not found
    assert "no config.json in 'c': only tensors were compared" in notes
    assert "config.json: foo is 1 in 'a' and 2 in 'b'" in notes
    assert "config.json: hidden_act is silu in 'a' and not given in 'b'" in notes


def test_a_context_length_matters_where_rope_is_scaled() -> None:
    """max_position_embeddings is a limit with plain RoPE (a note) and a part of the formula with scaled RoPE."""
    scaling = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}

    plain = compare_configs({"a": {"max_position_embeddings": 4096}, "b": {"max_position_embeddings": 8192}})
    scaled = compare_configs(
        {"a": {"max_position_embeddings": 4096, **scaling}, "b": {"max_position_embeddings": 8192, **scaling}}
    )

    assert (len(plain[0]), len(plain[1])) == (0, 1)
    assert (len(scaled[0]), len(scaled[1])) == (1, 0)


def test_a_configuration_that_is_no_object(tmp_path: Path, family: Family) -> None:
    """E0808: it is there, and says nothing; a soup would carry it on."""
    one = write_folder(tmp_path / "one", family.tuned[0], side_files={"config.json": "[]"})
    two = write_folder(tmp_path / "two", family.tuned[1])

    with pytest.raises(RefusedFileError) as error:
        library.merge(library.make_recipe([one, two], uniform=True), tmp_path / "soup")

    assert error.value.code == "E0808"
