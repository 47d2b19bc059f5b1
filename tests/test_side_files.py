"""config.json of a soup tells the truth about its dtype, and is otherwise the ingredient's, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import CONFIG, Family, write_folder
from refusals import header

import rsoup as library
from rsoup.errors import RefusedFileError
from rsoup.side_files import config_with_dtype, main_dtype


def test_the_main_dtype_takes_the_most_bytes() -> None:
    """The dtype of a model is that of most of its bytes: a few float32 norms leave a bf16 model bf16."""
    assert main_dtype(header(a="BF16 100", b="F32 10", c="I64 1000")) == "bfloat16"
    assert main_dtype(header(a="BF16 100", b="F32 51")) == "float32"
    assert main_dtype(header(c="I64 1000")) is None
    assert main_dtype({}) is None


@pytest.mark.parametrize(
    "text", ['{"dtype": "bfloat16"}', '{ "torch_dtype":"bfloat16",\n"x": 1e-05 }', "[1]", '{"dtype": null}']
)
def test_a_config_with_dtype_stays_as_it_is(text: str) -> None:
    """Where nothing is to be corrected not a byte changes, white space and order included."""
    assert config_with_dtype(text.encode(), "bfloat16") == text.encode()
    assert config_with_dtype(text.encode(), None) == text.encode()


def test_every_dtype_is_corrected() -> None:
    """`dtype` and `torch_dtype`, at the top and in the parts, get the soup's; all else keeps its value and order."""
    config = {
        "z": [0.0, float("inf")], "torch_dtype": "torch.bfloat16", "text_config": {"dtype": "bfloat16", "eps": 1e-05},
        "name": "naïve \ud800", "quantization": {"dtype": "int8"},
    }  # fmt: skip

    found = json.loads(config_with_dtype(json.dumps(config).encode(), "float32"))

    assert list(found) == list(config)
    assert found == config | {"torch_dtype": "float32", "text_config": {"dtype": "float32", "eps": 1e-05}}


def test_a_config_in_the_dialect_of_transformers_4(tmp_path: Path, family: Family) -> None:
    """`Infinity`, which transformers 4 wrote for Mamba 2, is read; NaN, which equals nothing, is refused."""
    for name, value in (("a", float("inf")), ("b", float("inf")), ("c", float("nan"))):
        write_folder(tmp_path / name, family.tuned[0], config={**CONFIG, "time_step_limit": [0.0, value]})

    result = library.merge(
        library.make_recipe([tmp_path / "a", tmp_path / "b"], uniform=True), tmp_path / "soup"
    )
    with pytest.raises(RefusedFileError) as error:
        library.merge(library.make_recipe([tmp_path / "a", tmp_path / "c"], uniform=True), tmp_path / "soup2")

    assert not result.notes
    assert (tmp_path / "soup" / "config.json").read_bytes() == (tmp_path / "a" / "config.json").read_bytes()
    assert error.value.code == "E0808"
