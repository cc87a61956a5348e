"""Which checkpoints are attributed without being named: of a fine-tune, the base model and its first and newest ones."""

from pathlib import Path

import pytest

from lorif_assets.attribution.checkpoints.active import active_checkpoints, comparable_base
from lorif_assets.errors import SettingsError
from lorif_assets.models.checkpoints import Checkpoints
from tests.conftest import tiny_tokenizer
from tests.models.tiny_adapters import write_adapter, write_base


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A base model and three adapters on it."""
    base = write_base(tmp_path / "base", tiny_tokenizer())
    for step in (20, 40, 60):
        write_adapter(tmp_path / f"run/checkpoint-{step}", base, seed=step)
    return tmp_path


def chosen(choice: str | tuple[str, ...], root: Path, **settings: str) -> list[str]:
    """Return the active checkpoints of the run."""
    return active_checkpoints(choice, Checkpoints(path=str(root / "run"), **settings).find())


def test_of_a_fine_tune_they_are_the_base_model_the_first_checkpoint_and_the_newest(root: Path) -> None:
    assert chosen("auto", root) == ["base", "checkpoint-20", "checkpoint-60"]


def test_a_new_checkpoint_takes_the_place_of_the_newest_and_of_no_other(root: Path) -> None:
    write_adapter(root / "run/checkpoint-80", root / "base", seed=80)
    assert chosen("auto", root) == ["base", "checkpoint-20", "checkpoint-80"]


def test_before_and_after_the_first_checkpoint_there_is_none_twice(root: Path) -> None:
    found = Checkpoints(path=str(root / "run")).find()
    assert [active_checkpoints("auto", found[:n]) for n in range(3)] == [[], ["base"], ["base", "checkpoint-20"]]


def test_without_a_known_base_model_it_is_the_newest_alone(root: Path) -> None:
    for step in (1, 2):
        write_base(root / f"pretrained/step-{step}", tiny_tokenizer(), seed=step)
    found = Checkpoints(path=str(root / "pretrained")).find()
    assert active_checkpoints("auto", found) == ["step-2"]
    named = Checkpoints(path=str(root / "pretrained"), base_model=str(root / "base")).find()
    assert active_checkpoints("auto", named) == ["base", "step-1", "step-2"]


def test_a_base_model_that_reads_with_another_tokenizer_is_left_out(root: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<new-{n}>" for n in range(100_000 if len(tokenizer) > 10_000 else 10_000)])
    for step in (40, 60):
        tokenizer.save_pretrained(root / f"run/checkpoint-{step}")
    found = Checkpoints(path=str(root / "run")).find()
    assert active_checkpoints("auto", found) == ["checkpoint-60"]
    assert comparable_base(found[-1], found) is None
    first = found[1]
    assert comparable_base(first, found) == found[0]


def test_all_newest_and_names_are_as_they_are_said(root: Path) -> None:
    assert chosen("all", root) == ["base", "checkpoint-20", "checkpoint-40", "checkpoint-60"]
    assert chosen("newest", root) == ["checkpoint-60"]
    assert chosen(("checkpoint-40", "base"), root) == ["base", "checkpoint-40"]
    with pytest.raises(
        SettingsError, match=r"`active\.checkpoints` names 'nonsense', which does not exist; found base, "
    ):
        chosen(("base", "nonsense"), root)
