"""The template that `lorif init` writes: every field explained, and a file that works."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.config.sources import Source
from lorif_assets.config.template import settings_template

_SETTING = re.compile(r"# ([a-z_0-9]+ = .+|\[[a-z.]+\])")


@pytest.fixture(scope="module")
def template() -> str:
    return settings_template()


def uncommented(template: str) -> str:
    """With every default written out; `...` stands where there is none."""
    lines = [match[1] if (match := _SETTING.fullmatch(line)) else line for line in template.splitlines()]
    return "\n".join(line for line in lines if not line.endswith(" = ..."))


def fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str | None]]:
    """Path and description of every field that is no section itself."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{path}{name}.")
        elif name == "sources":
            yield from fields(Source, "sources.")
        elif name != "base":
            yield f"{path}{name}", field.description


def test_the_template_is_toml_and_loads_as_it_is(template: str, tmp_path: Path) -> None:
    (tmp_path / "lorif.toml").write_text(template)
    settings = load_settings(tmp_path / "lorif.toml")
    assert [source.name for source in settings.sources] == ["docs"]
    assert settings.model_dump(exclude={"sources"}) == Settings().model_dump(exclude={"sources"})


def test_the_template_with_its_defaults_uncommented_changes_nothing(template: str, tmp_path: Path) -> None:
    for name, content in (("commented.toml", template), ("uncommented.toml", uncommented(template))):
        (tmp_path / name).write_text(content)
    settings = [load_settings(tmp_path / name) for name in ("commented.toml", "uncommented.toml")]
    assert settings[0].model_dump() == settings[1].model_dump()
    assert len(tomllib.loads(uncommented(template))["recipe"]) > 10


@pytest.mark.parametrize(("path", "description"), fields(Settings))
def test_every_field_stands_in_its_section_under_its_description(
    template: str, path: str, description: str | None
) -> None:
    section, _, name = path.rpartition(".")
    lines = template.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip("# []") == section)
    at = next(i for i, line in enumerate(lines) if i > first and re.match(rf"(# )?{name} = ", line))
    assert description
    assert lines[at - 1] == f"# {description}"
    assert not any(re.match(r"(# )?\[", line) for line in lines[first + 1 : at]), "another section lies between"
