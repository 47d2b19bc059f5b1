"""What the Hub's check of a model card says, for the tests' Hub."""

from __future__ import annotations

import re
from typing import Any

import yaml

LICENSES = [
    "apache-2.0",
    "mit",
    "openrail",
    "bigscience-openrail-m",
    "creativeml-openrail-m",
    "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m",
    "afl-3.0",
    "artistic-2.0",
    "bsl-1.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc",
    "cc0-1.0",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "ecl-2.0",
    "epl-1.0",
    "epl-2.0",
    "eupl-1.1",
    "agpl-3.0",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl",
    "lgpl-2.1",
    "lgpl-3.0",
    "isc",
    "lppl-1.3c",
    "ms-pl",
    "mpl-2.0",
    "odc-by",
    "odbl",
    "osl-3.0",
    "postgresql",
    "ofl-1.1",
    "ncsa",
    "unlicense",
    "zlib",
    "pddl",
    "gemma",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "llama4",
    "deepfloyd-if-license",
    "unknown",
    "other",
]
RELATIONS = ("adapter", "merge", "quantized", "finetune")
MODEL = re.compile(r"[\w.-]+(/[\w.-]+)?")


def problems(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings of a card's metadata."""
    found = re.match(r"---\r?\n(.*?)\r?\n---", content, re.DOTALL)
    if not found:
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(found.group(1))
    except yaml.YAMLError as error:
        return [f"Invalid YAML: {error}"], []
    if not isinstance(data, dict):
        return ["the metadata must be a mapping"], []
    return [*of_fields(data), *of_index(data)], []


def several(value: Any) -> list[Any]:
    """A value that may be one or a list."""
    return value if isinstance(value, list) else [value]


def of_fields(data: dict[str, Any]) -> list[str]:
    """Errors of the single fields."""
    errors = []
    for name in several(data.get("license", [])):
        if name not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(LICENSES)}]')
    for name in several(data.get("base_model", [])):
        if not isinstance(name, str) or not MODEL.fullmatch(name):
            errors.append(f'"base_model" with value "{name}" is not valid. Use a model id from the Hub.')
    if data.get("base_model_relation", "merge") not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {", ".join(RELATIONS)}')
    if not all(isinstance(tag, str) for tag in several(data.get("tags", []))):
        errors.append('"tags" must be an array of strings')
    if not re.fullmatch(r"[a-z0-9-]+", str(data.get("pipeline_tag", "x"))):
        errors.append('"pipeline_tag" must be a string')
    return errors


def of_index(data: dict[str, Any]) -> list[str]:
    """Errors of the results."""
    errors = []
    for at, model in enumerate(several(data.get("model-index", []))):
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            errors.append(f'"model-index[{at}].name" is required')
            continue
        for n, result in enumerate(model.get("results") or []):
            where = f"model-index[{at}].results[{n}]"
            for path in ("task.type", "dataset.type", "dataset.name"):
                outer, inner = path.split(".")
                if not isinstance((result.get(outer) or {}).get(inner), str):
                    errors.append(f'"{where}.{path}" is required')
            metrics = result.get("metrics") or []
            if not metrics or any("type" not in one or "value" not in one for one in metrics):
                errors.append(f'"{where}.metrics" needs type and value')
    return errors
