"""A base model as step 0 of its fine-tunes: it reads with their tokenizer, where it has an embedding for every token."""

import json
import shutil
from pathlib import Path

import pytest

from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.fine_tunes import trained_from
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import write_adapter, write_base


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two adapters, in a folder beside their base model."""
    base = write_base(tmp_path / "models/base", tiny_tokenizer())
    for step in (20, 40):
        write_adapter(tmp_path / f"run/checkpoint-{step}", base, seed=step)
    return tmp_path / "run"


def save_tokenizer(folder: Path, *more_tokens: str) -> None:
    """Save the tokenizer as a trainer does that has set a template for chats, and may have added tokens."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(more_tokens))
    tokenizer.chat_template = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)


def test_a_base_model_reads_with_its_own_tokenizer_where_adapters_bring_none(run: Path) -> None:
    base, *adapters = Checkpoints(path=str(run)).find()
    assert {one.tokenizer_folder for one in (base, *adapters)} == {base.path}


def test_a_base_model_reads_with_the_tokenizer_of_the_newest_adapter(run: Path) -> None:
    for step in (20, 40):
        save_tokenizer(run / f"checkpoint-{step}")
    base, first, last = Checkpoints(path=str(run)).find()
    assert base.tokenizer_folder == last.path
    assert base.tokenizer_hash() == first.tokenizer_hash() == last.tokenizer_hash()


def test_another_tokenizer_of_the_fine_tune_is_another_version_of_the_base_model(run: Path) -> None:
    before = Checkpoints(path=str(run)).find()[0].version()
    save_tokenizer(run / "checkpoint-40")
    assert Checkpoints(path=str(run)).find()[0].version() != before


def test_a_token_that_the_base_model_has_no_embedding_for_leaves_it_with_its_own_tokenizer(run: Path) -> None:
    rows = json.loads((run.parent / "models/base/config.json").read_text())["vocab_size"]
    save_tokenizer(run / "checkpoint-40", *(f"<new-{n}>" for n in range(rows)))
    base, *_ = Checkpoints(path=str(run)).find()
    assert base.tokenizer_folder == base.path


def test_a_damaged_tokenizer_of_the_fine_tune_leaves_the_base_model_with_its_own(run: Path) -> None:
    save_tokenizer(run / "checkpoint-40")
    (run / "checkpoint-40/tokenizer.json").write_text("{")
    base, *_ = Checkpoints(path=str(run)).find()
    assert base.tokenizer_folder == base.path


def test_whole_models_are_trained_from_the_base_model_that_the_settings_name(run: Path) -> None:
    whole = write_base(run.parent / "whole/checkpoint-7", tiny_tokenizer(), seed=7)
    base, other = (run.parent / "models" / name for name in ("base", "other"))
    shutil.copytree(base, other)
    named = Checkpoints(path=str(whole.parent), base_model=str(base)).find()
    assert [one.name for one in trained_from(base, named)] == ["checkpoint-7"]
    assert trained_from(base, Checkpoints(path=str(whole.parent)).find()) == []
    adapters = Checkpoints(path=str(run)).find()
    assert [one.name for one in trained_from(base, adapters)] == ["checkpoint-20", "checkpoint-40"]
    assert trained_from(other, adapters) == []
