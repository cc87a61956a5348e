"""Chat templates beside the default one: they come with a checkpoint wherever it is, and results know which they were."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.artifacts import assembled
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.places.hub_checkpoints import HubCheckpoints
from tests.hub_stand_in import HubStandIn, fetched

TOOL_USE = "additional_chat_templates/tool_use.jinja"


@pytest.fixture
def folder(tmp_path: Path, saved_model: Mapping[str, bytes]) -> Path:
    """A checkpoint with a chat template for conversations, and one for those with tools."""
    folder = tmp_path / "step-000100"
    folder.mkdir()
    for name, content in saved_model.items():
        (folder / name).write_bytes(content)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / TOOL_USE).parent.mkdir()
    (folder / TOOL_USE).write_text("{{ messages }}{{ tools }}")
    return folder


def files_of(folder: Path) -> CheckpointFiles:
    return CheckpointFiles(folder.name, folder, 100)


def templates(folder: Path) -> dict[str, str]:
    found: dict[str, str] = Checkpoints(path=str(folder)).load_tokenizer(files_of(folder)).chat_template
    return found


def test_another_template_is_another_tokenizer(folder: Path) -> None:
    before, version = files_of(folder).tokenizer_hash(), files_of(folder).version()
    (folder / TOOL_USE).write_text("{{ tools }}{{ messages }}")
    assert templates(folder)["tool_use"] == "{{ tools }}{{ messages }}"
    assert files_of(folder).tokenizer_hash() != before
    assert files_of(folder).version() != version


def test_a_tokenizer_without_them_keeps_its_hash(folder: Path) -> None:
    shutil.rmtree((folder / TOOL_USE).parent)
    without = files_of(folder).tokenizer_hash()
    (folder / TOOL_USE).parent.mkdir()
    assert files_of(folder).tokenizer_hash() == without


@pytest.mark.parametrize("name", ["chat_template.jinja", TOOL_USE])
@pytest.mark.parametrize(
    ("template", "is_another"),
    [
        ("{% if m.tool_calls %}[CALLS]{% endif %}", True),
        ("{% if m.tool_calls %}[CALLS]{% endif %}{% if add_generation_prompt %}<a>{% endif %}", False),
        ("{% if add_generation_prompt %}<a>{% endif %}<|channel|>final", True),
        ("{% if add_generation_prompt %}<a>{% endif %}<think></think>", True),
        ("{% if add_generation_prompt %}<a>{% endif %}{% if m.tool_calls %}<|tool_response>{% endif %}", True),
        ("{% for m in messages %}<h>{{ m.role }}{{ m.content }}{% endfor %}<h>assistant", True),
        ("{% for m in messages %}<h>{{ m.role }}{{ m.content }}{% endfor %}{{ eos_token }}", False),
        ("{{ m.content }}", False),
    ],
)
def test_only_a_template_whose_turns_were_told_in_part_is_another_tokenizer_than_to_an_earlier_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, template: str, is_another: bool
) -> None:
    (folder / name).write_text(template)
    now, version = files_of(folder).tokenizer_hash(), files_of(folder).version()
    monkeypatch.setattr("lorif_assets.models.files.checkpoint_files.tells_turns_otherwise", lambda _: False)
    assert (files_of(folder).tokenizer_hash() != now) is is_another
    assert (files_of(folder).version() != version) is is_another


def test_a_model_on_the_hub_has_one_version_on_all_machines_whether_its_files_are_there_or_not(
    folder: Path, hub: HubStandIn
) -> None:
    """A machine that looks and another that computes would otherwise take turns in finding the other's record wrong."""
    (folder / "chat_template.jinja").write_text("{% if m.tool_calls %}[CALLS]{% endif %}")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.model("org/tools").commit(files)
    (found,) = HubCheckpoints(path="hf://org/tools@main").find()
    before = found.version()
    found.check()
    assert found.version() == before


@pytest.mark.parametrize("place", ["", "step-1/"])
def test_they_are_fetched_from_the_hub(folder: Path, hub: HubStandIn, place: str) -> None:
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.model("org/tools").commit({f"{place}{name}": content for name, content in files.items()})
    assert templates(fetched(f"hf://org/tools@main/{place}".rstrip("/"))) == templates(folder)


def test_they_are_found_in_an_artifact(folder: Path, tmp_path: Path) -> None:
    expected, tokenizer = templates(folder), tmp_path / "artifact/components/tokenizer"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates"):
        (folder / name).rename(tokenizer / name)
    folder.rename(tmp_path / "artifact/model")
    assert templates(assembled(tmp_path / "artifact", "m:1", None, tmp_path / "home")) == expected
