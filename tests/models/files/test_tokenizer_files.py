"""Which files a tokenizer's hash is of: all that its tokens depend on, wherever they lie, and no other."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import ByT5Tokenizer

from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.artifacts import assembled
from lorif_assets.models.files.checkpoint_files import CheckpointFiles

_TEXT = "with <|new|>"
_CODE = "tokenization_own.py"


@pytest.fixture
def folder(tmp_path: Path, saved_model: Mapping[str, bytes]) -> Path:
    """A checkpoint."""
    folder = tmp_path / "run" / "step-000100"
    folder.mkdir(parents=True)
    for name, content in saved_model.items():
        (folder / name).write_bytes(content)
    return folder


def files_of(folder: Path) -> CheckpointFiles:
    return CheckpointFiles(folder.name, folder, 100)


def ids(folder: Path) -> list[int]:
    found: list[int] = Checkpoints(path=str(folder)).load_tokenizer(files_of(folder))(_TEXT)["input_ids"]
    return found


def add_token(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<|new|>": 300}))


def with_settings(folder: Path, **fields: object) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_tokens_that_a_file_beside_the_vocabulary_adds_make_another_tokenizer(folder: Path) -> None:
    before = ids(folder), files_of(folder).tokenizer_hash(), files_of(folder).version()
    add_token(folder)
    after = ids(folder), files_of(folder).tokenizer_hash(), files_of(folder).version()
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_a_file_of_added_tokens_that_is_not_read_is_no_part_of_a_tokenizer(folder: Path) -> None:
    """Of most tokenizers the settings list added tokens, and results of earlier versions stay what they are."""
    with_settings(folder, added_tokens_decoder={})
    before = ids(folder), files_of(folder).tokenizer_hash()
    add_token(folder)
    assert (ids(folder), files_of(folder).tokenizer_hash()) == before


@pytest.mark.parametrize("name", ["source.spm", "target.spm", "sentencepiece.bpe.model", "tiktoken.model"])
def test_a_vocabulary_of_one_family_is_part_of_the_tokenizer(folder: Path, name: str) -> None:
    hashes = [files_of(folder).tokenizer_hash()]
    for content in (b"one", b"another"):
        (folder / name).write_bytes(content)
        hashes.append(files_of(folder).tokenizer_hash())
    assert len({*hashes}) == 3


def test_a_tokenizer_of_bytes_needs_no_vocabulary(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    for settings in ({}, {"tokenizer_class": ["ByT5Tokenizer"]}):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        assert "has no tokenizer" in (files_of(folder).fault() or "")
    ByT5Tokenizer().save_pretrained(folder)
    assert files_of(folder).fault() is None
    assert ids(folder)[:4] == [byte + 3 for byte in b"with"]


def test_added_tokens_are_found_in_an_artifact(folder: Path, tmp_path: Path) -> None:
    add_token(folder)
    expected, tokenizer = ids(folder), tmp_path / "artifact/components/tokenizer"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        (folder / name).rename(tokenizer / name)
    folder.rename(tmp_path / "artifact/model")
    assert ids(assembled(tmp_path / "artifact", "m:1", None, tmp_path / "home")) == expected


@pytest.mark.parametrize("classes", [{"AutoTokenizer": ["tokenization_own.Own", None]}, ["tokenization_own.Own", None]])
def test_the_code_of_a_tokenizer_above_a_checkpoint_is_part_of_it(folder: Path, classes: object) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(folder.parent / name)
    (folder.parent / _CODE).write_text("one = 1")
    without = files_of(folder).tokenizer_hash()
    with_settings(folder.parent, auto_map=classes)
    before = files_of(folder).tokenizer_hash()
    (folder.parent / _CODE).write_text("two = 2")
    assert len({without, before, files_of(folder).tokenizer_hash()}) == 3


def test_code_that_the_weights_are_hashed_with_and_scripts_above_them_are_no_part_of_a_tokenizer(folder: Path) -> None:
    with_settings(folder, auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})
    before = files_of(folder).tokenizer_hash(), files_of(folder).weights_hash()
    (folder / _CODE).write_text("one = 1")
    (folder.parent / "train.py").write_text("one = 1")
    assert files_of(folder).tokenizer_hash() == before[0]
    assert files_of(folder).weights_hash() != before[1]
