"""An open checkpoint whose tensors are some tool's low-rank factors: known for what it is, or refused with a way out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

from rsoup import dialects
from rsoup.dialects import ADAPTER_CONFIG, ADAPTER_FILES, dialect_of
from rsoup.errors import RefusedFileError
from rsoup.storage.checkpoint_source import CheckpointSource

COMPONENT: Final = re.compile(
    r"^(?P<component>unet|transformer(?:_2|_ref)?|text_encoder(?:_[23])?|connectors|text_conditioner)\."
)
_PIPELINE: Final = "model_index.json"
_FLUX: Final = re.compile(r"^lora_unet_(?:double|single|joint|context|noise|transformer)_")
_FOLD: Final = "fold it into its base with the tool that made it, and mix the full checkpoints"


def recognised(source: CheckpointSource, shown: str) -> CheckpointSource:
    """The same source, which knows it if it is a LoRA of diffusers; refused where it is another tool's.

    Raises RefusedFileError E0809 (in the folder of a pipeline), E0812 (PEFT's file without its configuration), E0825 (a dialect that is not mixed) and
    E0826 (factors among a model's own weights).
    """
    if any(file.name in ADAPTER_FILES for file in source.files) and ADAPTER_CONFIG in source.side_files:
        return source
    dialect = dialect_of(source.header)
    if dialect is None:
        return source
    if dialect == dialects.DIFFUSERS and not source.keyed:
        if _PIPELINE in source.side_files:
            raise RefusedFileError(
                "E0809",
                "a pipeline and a LoRA lie in one folder",
                where=shown,
                hint=f"name the LoRA's file ({shown}/{source.files[0].name}), or move it out of the folder",
            )
        source.is_pipeline_lora = True
        return source
    raise _refusal(dialect, source, shown)


def _refusal(dialect: str, source: CheckpointSource, shown: str) -> RefusedFileError:
    if dialect == dialects.PEFT:
        return RefusedFileError(
            "E0812",
            f"half an adapter: PEFT's factors without {ADAPTER_CONFIG}, which says how they are scaled",
            where=shown,
            hint=f"put both into one folder, the weights as {ADAPTER_FILES[0]}, and name that",
        )
    if dialect == dialects.INSIDE:
        return RefusedFileError(
            "E0826",
            "the factors of a LoRA lie among a model's own weights: averaged by themselves they are no soup",
            where=shown,
            hint="model.merge_and_unload() makes plain weights of it (diffusers: pipe.fuse_lora(), then "
            "pipe.unload_lora_weights()); save that",
        )
    what = "diffusers, pickled" if dialect == dialects.DIFFUSERS else dialect
    return RefusedFileError(
        "E0825",
        f"this is a LoRA in the format of {what}: its factors averaged by themselves would be no soup",
        where=shown,
        hint=_way_out(dialect, source.header, shown),
    )


def _way_out(dialect: str, names: Collection[str], shown: str) -> str:
    if dialect == dialects.LYCORIS or any(name.endswith(".dora_scale") for name in names):
        return f"diffusers does not read all of it: {_FOLD}"
    if dialect == dialects.LOWER_CASE:
        return f"save it as a PEFT adapter, or {_FOLD}"
    return conversion(names, shown)


def conversion(names: Iterable[str], path: str) -> str:
    """What to type in Python, with `pipe` the pipeline a LoRA belongs to, so that diffusers saves it as rsoup reads it."""
    parts = sorted({component_of(name) for name in names})
    if parts == [""]:
        load = f"pipe.unet.load_lora_adapter({path!r}, prefix=None, adapter_name='a')"
        return f"{load}; pipe.unet.save_lora_adapter('NAME', adapter_name='a') writes NAME as rsoup reads it"
    saved = ", ".join(
        f"{part}_lora_layers=state(pipe.{part}, adapter_name='a'), "
        f"{part}_lora_adapter_metadata=pipe.{part}.peft_config['a'].to_dict()"
        for part in parts
        if part
    )
    return (
        f"from peft import get_peft_model_state_dict as state; pipe.load_lora_weights({path!r}, adapter_name='a'); "
        f"pipe.save_lora_weights('NAME', {saved}) writes NAME as rsoup reads it"
    )


def component_of(name: str) -> str:
    """The component of a pipeline that a tensor of a LoRA is of, in any dialect; '' where its name says none."""
    if found := COMPONENT.match(name):
        return found["component"]
    if name.startswith(("diffusion_model.", "model.diffusion_model.", "lora_transformer_")) or _FLUX.match(
        name
    ):
        return "transformer"
    if name.startswith("lora_unet_"):
        return "unet"
    if name.startswith("lora_te2_"):
        return "text_encoder_2"
    return "text_encoder" if name.startswith("lora_te") else ""
