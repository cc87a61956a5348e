"""`lorif doctor` on deliberately odd projects: it finds what `lorif materialize` would stop at, in the same words."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lorif_assets.cli.doctor import diagnose
from lorif_assets.config.settings import load_settings
from lorif_assets.errors import LorifError
from lorif_assets.evaluation.retraining.training_recipe import imported_trainer
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHAT = [{"role": "user", "content": "the with statement"}, {"role": "assistant", "content": " opens a file"}]


def diagnosis(root: Path) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=1_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORIF_CONFIG", str(root / "lorif.toml"))
        sound = diagnose(console)
    assert isinstance(console.file, io.StringIO)
    return sound, console.file.getvalue()


def write(root: Path, name: str, *rows: Mapping[str, Any]) -> None:
    (root / name).write_text("\n".join(map(json.dumps, rows)))


def setting(root: Path, before: str, after: str) -> None:
    file = root / "lorif.toml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after, 1))


def named(column: str) -> Callable[[Path], None]:
    return lambda root: setting(root, 'text = "text"', column)


def only(*rows: Mapping[str, Any], columns: str = "") -> Callable[[Path], None]:
    """Let the source be one file of these rows."""

    def damage(root: Path) -> None:
        for file in (root / "data").iterdir():
            file.unlink()
        write(root, "data/00000.jsonl", *rows)
        setting(root, 'columns = { id = "id", text = "text" }', columns)

    return damage


def queries(*rows: Mapping[str, Any]) -> Callable[[Path], None]:
    return lambda root: write(root, f"queries/{QUERY_SET}.jsonl", *rows)


def empty_texts(root: Path) -> None:
    rows = [{"id": f"{k}", "text": "a file opens" if k > 5 else ""} for k in range(12)]
    write(root, "data/00001.jsonl", *rows)


def short_texts(root: Path) -> None:
    rows = [{"id": f"{k}", "text": "a file opens" if k > 5 else "x"} for k in range(12)]
    write(root, "data/00001.jsonl", *rows)


def two_sources_of_one_shard(root: Path) -> None:
    setting(root, "[queries]", '[[sources]]\nname = "docs-00000"\npath = "other.jsonl"\n\n[queries]')
    write(root, "other.jsonl", {"text": "a file opens"})


def larger_tokenizer(root: Path) -> None:
    checkpoints = Checkpoints(path=str(root / "checkpoints"), trust_remote_code=False)
    for name in CHECKPOINTS:
        tokenizer = checkpoints.load_tokenizer(CheckpointFiles(name, root / "checkpoints" / name, None))
        tokenizer.add_tokens([f"{word} " for word in ("a", "file", "the", "with")])
        tokenizer.save_pretrained(root / "checkpoints" / name)


def tiny_budget(root: Path) -> None:
    setting(root, 'curvature = "svd"\nfactor_dtype = "bf16"\nrank = 1', 'curvature = "ekfac"\nbytes_per_example = 3')


ODD: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "a column that is not there": (named('text = "body"'), "no column 'body' (columns.text). The columns there are:"),
    "a metadata column that is not there": (
        named('text = "text", metadata = ["author"]'),
        "no column 'author' (columns.metadata)",
    ),
    "a column that one file alone lacks": (
        lambda root: write(root, "data/00001.jsonl", {"id": "x", "body": "a file"}),
        "no column 'text' (columns.text). The columns there are: id, body",
    ),
    "no column that is known": (only({"body": "a file"}), "no column named text, prompt and completion"),
    "columns of several kinds": (
        only({"text": "a file", "prompt": "a", "completion": " file"}),
        "columns of several kinds of content (text, prompt_completion)",
    ),
    "chats without a chat template": (only({"messages": CHAT}, {"messages": CHAT}), "has no chat template, which chat"),
    "a file without a usable row": (
        lambda root: write(root, "data/00001.jsonl", {"id": "x", "text": ""}),
        "none of 1 rows can be used (row 0: text is empty)",
    ),
    "too many empty rows": (
        empty_texts,
        "more than the share `data.max_rejected_share` = 0.1 allows: text is empty (7)",
    ),
    "too many rows without a token to predict": (
        short_texts,
        "allows: no target token: of 1 tokens, none after the first carries loss (6)",
    ),
    "token ids of another model": (
        only(*({"input_ids": [1, 2, 3_000 + k]} for k in range(3))),
        "does not fit the model, whose embedding has",
    ),
    "two sources with one shard": (two_sources_of_one_shard, "would both be shard 'docs-00000-00000'"),
    "a query column that is not there": (
        queries({"prompt": "a", "completion": " file opens"}),
        "no column 'id' (columns.id)",
    ),
    "queries without a usable row": (
        queries({"id": "q", "prompt": "a", "completion": ""}),
        "none of 1 rows can be used (row 0: completion is empty)",
    ),
    "an empty query file": (
        lambda root: (root / "queries/more.jsonl").write_text(""),
        "is empty: it has no rows",
    ),
    "too many bad queries": (
        queries(*({"id": f"q{k}", "prompt": "a", "completion": " file opens" * k} for k in range(3))),
        "more than the share `data.max_rejected_share` = 0.1 allows: completion is empty (1)",
    ),
    "chat queries without a chat template": (
        queries({"id": "q", "messages": CHAT}),
        "has no chat template, which chat",
    ),
    "a tokenizer of another model": (larger_tokenizer, "does not fit the model, whose embedding has"),
    "a query set that is not there": (
        lambda root: setting(root, 'checkpoints = "all"', 'query_sets = ["answers"]'),
        "`active.query_sets` names 'answers', which does not exist; found questions",
    ),
    "a budget that pays for nothing": (tiny_budget, "`recipe.bytes_per_example` is 3, but one"),
    "a lake in a file": (
        lambda root: setting(root, "[recipe]", '[lake]\nroot = "lorif.toml/lake"\n\n[recipe]'),
        "lorif.toml",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_doctor_finds_what_materialize_would_stop_at(private_project: TinyProject, what: str) -> None:
    damage, words = ODD[what]
    damage(private_project.root)
    sound, said = diagnosis(private_project.root)
    assert not sound
    assert words in said
    project = TinyProject.open(private_project.root, private_project.instance)
    with pytest.raises((LorifError, OSError)) as stopped:
        project.update()
    assert words in str(stopped.value)


def test_a_trainer_that_cannot_be_imported_is_found(private_project: TinyProject) -> None:
    setting(private_project.root, "[recipe]", '[evaluation]\ntrainer = "nowhere.at:all"\n\n[recipe]')
    sound, said = diagnosis(private_project.root)
    assert not sound
    with pytest.raises(LorifError) as refused:
        imported_trainer("nowhere.at:all")
    assert str(refused.value) in said


def test_a_training_command_that_is_not_there_is_found(private_project: TinyProject) -> None:
    setting(private_project.root, "[recipe]", '[evaluation]\ncommand = ["no-such-program"]\n\n[recipe]')
    sound, said = diagnosis(private_project.root)
    assert not sound
    assert "`evaluation.command` cannot be started: there is no program 'no-such-program'" in said


def test_the_missing_extra_of_influcoder_is_found(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(private_project.root, "[recipe]", "[influcoder]\nenabled = true\n\n[recipe]")
    monkeypatch.setattr("lorif_assets.influcoder.extra.find_spec", lambda name: None)
    sound, said = diagnosis(private_project.root)
    assert not sound
    assert "install the extra `influcoder`" in said


def test_rows_that_would_be_cut_or_set_aside_are_counted_and_no_fault(private_project: TinyProject) -> None:
    long = "the with statement opens a file and closes it " * 20
    for row in range(3):
        private_project.edit_shard(1, row, long)
    sound, said = diagnosis(private_project.root)
    assert sound
    assert "3 of 38 rows looked at would be cut to 48 tokens" in said
    assert "by the rule keep_start" in said
    assert "2 of 38 rows looked at would be set aside: malformed JSON" in said
    assert "`lorif preview --source docs` shows" in said


def test_what_a_person_should_know_of_rows_is_a_note_and_is_not_logged_besides(
    private_project: TinyProject, caplog: pytest.LogCaptureFixture
) -> None:
    straddling = {"id": "q", "prompt": "the wi", "completion": "th statement opens"}
    queries(straddling)(private_project.root)
    _, said = diagnosis(private_project.root)
    assert "1 of 1 rows looked at: one token holds the end of the prompt and the beginning of the completion" in said
    assert "one token holds" not in caplog.text


def test_ids_of_rows_that_no_setting_names_are_a_note_where_each_row_has_its_own(private_project: TinyProject) -> None:
    said_of = '`columns.id = "id"` names them by it'
    assert said_of not in diagnosis(private_project.root)[1]
    setting(private_project.root, 'columns = { id = "id", text = "text" }', 'columns = { text = "text" }')
    sound, said = diagnosis(private_project.root)
    assert sound
    assert said.count(said_of) == 1
    rows = [{"id": "same", "text": "a file opens"}] * 2
    write(private_project.root, "data/00001.jsonl", *rows)
    assert said_of not in diagnosis(private_project.root)[1]


def test_queries_are_cut_so_that_what_they_ask_about_is_kept(private_project: TinyProject) -> None:
    long = "the with statement opens a file and closes it " * 20
    queries({"id": "q0", "prompt": long, "completion": " ends"})(private_project.root)
    sound, said = diagnosis(private_project.root)
    assert sound
    assert (
        "1 of 1 rows looked at would be cut to 48 tokens (recipe.max_length or the model's context) by the rule drop_early"
        in said
    )


def test_without_a_length_the_models_context_is_the_limit(private_project: TinyProject) -> None:
    long = "the with statement opens a file and closes it " * 20
    private_project.edit_shard(1, 0, long)
    setting(private_project.root, "max_length = 48\n", "")
    _, said = diagnosis(private_project.root)
    assert "at most 64 tokens of an example" in said
    assert "1 of 38 rows looked at would be cut to 64 tokens" in said


def test_a_look_at_the_contents_loads_no_weights(private_project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoints, "load_model", lambda *_: pytest.fail("weights were loaded"))
    sound, _ = diagnosis(private_project.root)
    assert sound


def test_a_large_source_is_looked_at_in_many_of_its_files_and_few_of_their_rows(private_project: TinyProject) -> None:
    for file in range(3, 60):
        rows = [{"id": f"{file}-{row}", "text": "a file opens"} for row in range(100)]
        write(private_project.root, f"data/{file:05d}.jsonl", *rows)
    (private_project.root / "data/00059.jsonl").write_text('{"id": "x", "body": "the last file"}')
    sound, said = diagnosis(private_project.root)
    assert not sound
    assert "The columns there are: id, body" in said
    assert load_settings(private_project.root / "lorif.toml").sources[0].path == "data"
