"""lorif.toml as a commented template: every field with its meaning and default, made from the settings themselves."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Source

_EXAMPLE_SOURCE = {"name": '"docs"', "path": '"data"'}


def settings_template() -> str:
    """Return a lorif.toml that sets nothing but one source, with every field explained."""
    lines = [
        "# lorif.toml: what to attribute, how, and where the results go.",
        "# Commented-out fields show their defaults, `...` where there is none. An environment variable sets any field:",
        "# LORIF_RECIPE__R=128 sets r in [recipe]. Relative paths start at the folder of this file.",
    ]
    for name, field in Settings.model_fields.items():
        if name == "sources":
            lines += ["", "# Training data; repeat the block for more sources.", "[[sources]]"]
            lines += _block(name, Source, _EXAMPLE_SOURCE)
        elif section := _section(field.annotation):
            lines += ["", f"[{name}]", *_block(name, section, {})]
    return "\n".join(lines) + "\n"


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _block(path: str, model: type[BaseModel], values: dict[str, str]) -> Iterator[str]:
    yield from _fields(model, values)
    for name, field in model.model_fields.items():
        if section := _section(field.annotation):
            yield f"# [{path}.{name}]"
            yield from _fields(section, {})


def _fields(model: type[BaseModel], values: dict[str, str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if _section(field.annotation):
            continue
        yield f"# {field.description}"
        yield f"{name} = {values[name]}" if name in values else f"# {name} = {_default(field)}"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "..."
    if isinstance(value, dict):
        return "{}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, default=str)
