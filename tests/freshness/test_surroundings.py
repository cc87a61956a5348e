"""What `lorif init` finds in a folder: checkpoints, adapters, data files with their columns, a file of queries."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lorif_assets.config.first_settings import first_settings
from lorif_assets.config.settings import load_settings
from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.examples import normalise
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.freshness.surroundings import look_around


def rows(file: Path, *columns: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(dict.fromkeys(columns, "words")) + "\n")


def model(folder: Path, *, adapter: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ("adapter_config.json" if adapter else "config.json")).write_text("{}")
    (folder / ("adapter_model.safetensors" if adapter else "model.safetensors")).write_bytes(folder.name.encode())


def test_nothing_is_found_in_an_empty_folder(tmp_path: Path) -> None:
    found = look_around(tmp_path)
    assert (found.sources, found.checkpoints, found.queries) == ([], None, None)


def test_the_folder_with_the_most_checkpoints_is_taken_and_a_single_model_beside_it_may_be_the_base(
    tmp_path: Path,
) -> None:
    model(tmp_path / "base")
    for step in (10, 20, 30):
        model(tmp_path / f"runs/7/checkpoint-{step}", adapter=True)
    found = look_around(tmp_path)
    assert (found.checkpoints, found.n_checkpoints, found.base_model) == ("runs/7", 3, "base")


def test_a_trainers_folder_with_a_last_model_is_one_folder_of_checkpoints(tmp_path: Path) -> None:
    model(tmp_path / "out")
    for step in (10, 20):
        model(tmp_path / f"out/checkpoint-{step}")
    found = look_around(tmp_path)
    assert (found.checkpoints, found.n_checkpoints, found.base_model) == ("out", 3, None)


def test_other_trainings_and_models_are_named_beside_the_folder_that_is_taken(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        model(tmp_path / f"runs/7/checkpoint-{step}")
    for step in (10, 20):
        model(tmp_path / f"runs/8/checkpoint-{step}")
    model(tmp_path / "runs/7")
    model(tmp_path / "runs/9")
    model(tmp_path / "runs/9/checkpoint-10")
    found = look_around(tmp_path)
    assert (found.checkpoints, found.n_checkpoints) == ("runs/7", 4)
    assert found.other_checkpoints == {"runs/8": 2, "runs/9": 2}
    assert "found too: runs/8 (2), runs/9 (2)." in first_settings(found)


@pytest.mark.parametrize(
    "files",
    [
        ("config.json", "tokenizer.json", "tokenizer_config.json", "pytorch_model.bin"),
        ("tokenizer.json", "tokenizer_config.json", "merges.txt"),
        ("trainer_state.json", "README.txt"),
        ("dataset_dict.json",),
    ],
)
def test_what_describes_a_model_that_cannot_be_read_is_no_data(tmp_path: Path, files: tuple[str, ...]) -> None:
    (tmp_path / "run/step_10").mkdir(parents=True)
    for name in files:
        (tmp_path / "run/step_10" / name).write_text("{}")
    rows(tmp_path / "run/step_10/rows.jsonl", "text")
    assert [one.source.path for one in look_around(tmp_path).sources] == ["run/step_10/rows.jsonl"]


def test_data_beyond_what_a_short_file_lists_are_named_in_it(tmp_path: Path) -> None:
    for number in range(11):
        rows(tmp_path / f"{number:02}/rows.jsonl", "text")
    found = look_around(tmp_path)
    assert [one.source.path for one in found.sources] == [f"{number:02}/rows.jsonl" for number in range(8)]
    assert "# Found too, and no source yet: 08/rows.jsonl, 09/rows.jsonl, 10/rows.jsonl." in first_settings(found)


def test_checkpoints_in_the_folder_itself_are_at_its_path(tmp_path: Path) -> None:
    for step in (10, 20):
        model(tmp_path / f"checkpoint-{step}")
    assert look_around(tmp_path).checkpoints == "."


def test_a_single_model_is_pointed_at_itself(tmp_path: Path) -> None:
    model(tmp_path / "model")
    (tmp_path / "web").mkdir()
    (tmp_path / "web/config.json").write_text("{}")
    assert look_around(tmp_path).checkpoints == "model"


@pytest.mark.parametrize("name", ["checkpoint-10", "step_000400", "epoch3"])
def test_the_first_checkpoint_of_a_training_stands_for_the_folder_that_the_next_ones_will_be_in(
    tmp_path: Path, name: str
) -> None:
    model(tmp_path / "out" / name, adapter=True)
    found = look_around(tmp_path)
    assert (found.checkpoints, found.n_checkpoints, found.base_model) == ("out", 1, None)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (("id", "text"), {"id": "id"}),
        (("uuid", "messages", "split"), {"id": "uuid"}),
        (("question", "answer"), {"prompt": "question", "completion": "answer"}),
        (("id", "body", "title"), {"id": "id", "text": "body"}),
        (("text", "messages"), {"messages": "messages"}),
    ],
)
def test_columns_are_told_by_what_they_are_usually_called(
    tmp_path: Path, columns: tuple[str, ...], expected: Mapping[str, str]
) -> None:
    rows(tmp_path / "train.jsonl", *columns)
    (source,) = look_around(tmp_path).sources
    assert source.is_readable
    assert source.source.columns.model_dump(exclude_none=True) == expected


_ASKED, _SAID = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ({"prompt": "Why?", "chosen": " So."}, {"prompt": "prompt", "completion": "chosen"}),
        ({"question": "Why?", "chosen": " So."}, {"prompt": "question", "completion": "chosen"}),
        ({"prompt": [_ASKED], "chosen": [_SAID]}, {"prompt": "prompt", "completion": "chosen"}),
        ({"input": [_ASKED], "chosen": [_SAID]}, {"prompt": "input", "completion": "chosen"}),
        ({"prompt": "Why?", "chosen": [_ASKED, _SAID]}, {"messages": "chosen"}),
        ({"chosen": [_ASKED, _SAID]}, {"messages": "chosen"}),
        ({"chosen": "Why? So."}, {"text": "chosen"}),
    ],
)
def test_of_preference_data_the_chosen_answer_is_named_and_can_be_read(
    tmp_path: Path, pair: dict[str, Any], expected: dict[str, str]
) -> None:
    (tmp_path / "pairs.jsonl").write_text(json.dumps({**pair, "rejected": pair["chosen"], "score_chosen": 8}))
    found = look_around(tmp_path)
    assert "Of each pair the chosen answer is read" in first_settings(found)
    (source,) = found.sources
    assert source.source.columns.model_dump(exclude_none=True) == expected
    (shard,) = list_shards(source.source, tmp_path)
    raw = read_shard(source.source, shard, tmp_path)
    assert normalise(raw, source.source.columns, shard.shard).examples.num_rows == 1


@pytest.mark.parametrize("mark", [True, 1, 0.5, "first"])
def test_answers_with_a_mark_that_is_called_chosen_are_read_themselves(tmp_path: Path, mark: object) -> None:
    (tmp_path / "rated.jsonl").write_text(json.dumps({"question": "Why?", "answer": " So.", "chosen": mark}))
    (source,) = look_around(tmp_path).sources
    assert source.source.columns == Columns(prompt="question", completion="answer")


def test_where_the_first_column_called_as_ids_are_names_no_row_another_one_may(tmp_path: Path) -> None:
    lines = (json.dumps({"id": 7, "uuid": f"u{k}", "text": "Hello!"}) for k in range(3))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    found = look_around(tmp_path)
    assert [(one.source.columns.id, one.no_id) for one in found.sources] == [("uuid", None)]


@pytest.mark.parametrize("ids", [["a", "a"], ["a", None], ["a", ""], [1, "1"]])
def test_a_column_called_as_ids_are_that_does_not_name_each_row_is_said_to_be_none(
    tmp_path: Path, ids: list[object]
) -> None:
    for name in ("train", "queries"):
        lines = (json.dumps({"uid": one, "prompt": "Hi.", "completion": " Hello!"}) for one in ids)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    found = look_around(tmp_path)
    assert [one.source.columns.id for one in found.sources] == [None]
    assert found.query_columns == Columns()
    assert 'named by their place: "uid" is empty or the same in some of them' in first_settings(found)
    lines = (json.dumps({"uid": one, "prompt": "Hi.", "completion": " Hello!"}) for one in range(3))
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    found = look_around(tmp_path)
    assert [one.source.columns.id for one in found.sources] == ["uid"]
    assert "named by their place" not in first_settings(found)


@pytest.mark.parametrize("columns", [("a", "b"), ("instruction", "input", "output")])
def test_columns_that_nothing_is_known_of_are_listed_for_a_person_to_choose_from(
    tmp_path: Path, columns: tuple[str, ...]
) -> None:
    rows(tmp_path / "train.jsonl", *columns)
    (source,) = look_around(tmp_path).sources
    assert not source.is_readable
    assert f"hold the content; there are {', '.join(columns)}." in first_settings(look_around(tmp_path))


def test_files_of_one_kind_in_a_folder_are_one_source_and_others_one_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows(tmp_path / f"corpus/{name}.jsonl", "text")
    rows(tmp_path / "mixed/chats.jsonl", "messages")
    rows(tmp_path / "mixed/pages.jsonl", "text")
    pl.DataFrame({"text": ["words"]}).write_parquet(tmp_path / "more.parquet")
    found = {one.source.name: one.source.path for one in look_around(tmp_path).sources}
    assert found == {
        "corpus": "corpus",
        "chats": "mixed/chats.jsonl",
        "pages": "mixed/pages.jsonl",
        "more": "more.parquet",
    }


@pytest.mark.parametrize("folder", ["", "data/"])
def test_a_json_or_csv_file_beside_other_data_is_a_source_where_its_columns_say_so(tmp_path: Path, folder: str) -> None:
    for name in ("a", "d"):
        rows(tmp_path / f"{folder}{name}.jsonl", "messages")
    (tmp_path / f"{folder}b.json").write_text(json.dumps([{"conversations": [{"from": "human", "value": "Hello"}]}]))
    (tmp_path / f"{folder}c.csv").write_text("question,answer\nwhat opens a file,the with statement\n")
    (tmp_path / f"{folder}info.json").write_text('{"version": "1", "splits": {"train": 2}}')
    (tmp_path / f"{folder}notes.txt").write_text("buy tea")
    found = look_around(tmp_path).sources
    assert [one.source.path for one in found] == [
        f"{folder}{name}" for name in ("a.jsonl", "b.json", "c.csv", "d.jsonl")
    ]
    assert all(one.is_readable for one in found)


def test_queries_are_told_by_their_name_and_held_out_data_are_no_training_data(tmp_path: Path) -> None:
    for name in ("train", "test", "test/more", "my-questions"):
        rows(tmp_path / f"{name}.jsonl", "question", "answer")
    found = look_around(tmp_path)
    assert [one.source.path for one in found.sources] == ["train.jsonl"]
    assert (found.queries, list(found.held_out)) == ("my-questions.jsonl", ["test.jsonl", "test/more.jsonl"])
    (tmp_path / "lorif.toml").write_text(first_settings(found))
    settings = load_settings(tmp_path / "lorif.toml")
    assert (settings.queries.columns.prompt, settings.queries.columns.completion) == ("question", "answer")


def test_no_file_of_a_folder_of_queries_is_training_data_and_columns_are_named_where_all_have_them(
    tmp_path: Path,
) -> None:
    rows(tmp_path / "data/chats.jsonl", "id", "messages")
    rows(tmp_path / "queries/mine.jsonl", "id", "messages")
    for columns, named in ((("id", "prompt", "completion"), "id"), (("prompt", "completion"), None)):
        rows(tmp_path / "queries/others.jsonl", *columns)
        found = look_around(tmp_path)
        assert ([one.source.path for one in found.sources], found.queries) == (["data/chats.jsonl"], "queries")
        (tmp_path / "lorif.toml").write_text(first_settings(found))
        assert load_settings(tmp_path / "lorif.toml").queries.columns.id == named


def test_data_that_could_be_queries_but_are_all_there_is_are_training_data(tmp_path: Path) -> None:
    rows(tmp_path / "questions.jsonl", "prompt", "completion")
    found = look_around(tmp_path)
    assert [one.source.path for one in found.sources] == ["questions.jsonl"]
    assert found.queries is None


def test_a_delta_table_is_one_source(tmp_path: Path) -> None:
    pl.DataFrame({"id": ["1"], "text": ["words"]}).write_delta(tmp_path / "table")
    (source,) = look_around(tmp_path).sources
    assert (source.source.path, source.source.columns.id) == ("table", "id")


def test_what_the_project_and_its_tools_write_is_no_data(tmp_path: Path) -> None:
    for folder in ("lake/query_scores", "mlruns/1", ".cache", "dagster_home"):
        rows(tmp_path / folder / "rows.jsonl", "text")
    (tmp_path / "requirements.txt").write_text("torch")
    (tmp_path / "package.json").write_text("{}")
    assert look_around(tmp_path).sources == []


def test_texts_by_other_endings_are_named_with_the_pattern_that_reads_them(tmp_path: Path) -> None:
    for name in ("README.md", "train.py", "docs/a.md", "docs/deep/b.md", "docs/c.rst", "paper/d.tex"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words\n")
    found = look_around(tmp_path)
    assert found.texts == {"docs/**/*.md": 2, "*.py": 1, "docs/*.rst": 1, "paper/*.tex": 1}
    assert "docs/**/*.md (2), *.py (1), docs/*.rst (1), paper/*.tex (1)." in first_settings(found)
    for pattern, number in found.texts.items():
        source = Source(name="texts", path=pattern, format=SourceFormat.TXT)
        # A pattern at the top takes what lies in the folder alone.
        assert len(list_shards(source, tmp_path)) == 1
        assert sum(piece.rows for piece in list_shards(source, tmp_path)) == number


def test_streams_of_tokens_and_archives_are_named_as_not_read_and_those_of_a_model_are_its_own(tmp_path: Path) -> None:
    model(tmp_path / "runs/checkpoint-1")
    state = ("state/model.safetensors", "state/optimizer.bin")
    for name in (*state, "runs/checkpoint-1/pytorch_model.bin", "data/train.bin", "data/val.bin", "data/0.tar"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\1")
    found = look_around(tmp_path)
    assert found.streams == {"data/*.bin": 2, "data/*.tar": 1}
    assert (
        "Not read unless settings say how, as docs/sources.md has it: data/*.bin (2), data/*.tar (1)."
        in first_settings(found)
    )


@pytest.mark.parametrize(("stream", "note"), [("train.npy", "index.json"), ("train.bin", "meta.json")])
def test_what_describes_a_stream_is_no_data(tmp_path: Path, stream: str, note: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / stream).write_bytes(b"\0\1")
    (data / note).write_text(json.dumps({"shards": [], "version": 2}))
    assert not look_around(tmp_path).sources


def test_a_few_texts_beside_data_are_no_data_and_many_are_named(tmp_path: Path) -> None:
    rows(tmp_path / "data/train.jsonl", "text")
    for number in range(9):
        (tmp_path / f"data/{number}.md").write_text("words\n")
    assert look_around(tmp_path).texts == {}
    (tmp_path / "data/9.md").write_text("words\n")
    assert look_around(tmp_path).texts == {"data/*.md": 10}


def test_odd_names_make_a_file_that_loads(tmp_path: Path) -> None:
    rows(tmp_path / 'a "b" \\ c/1.jsonl', "text")
    rows(tmp_path / 'a "b" \\ c/2.jsonl', "text")
    rows(tmp_path / "ü?.jsonl", "text")
    rows(tmp_path / "~home.jsonl", "text")
    (tmp_path / "lorif.toml").write_text(first_settings(look_around(tmp_path)))
    paths = [source.path for source in load_settings(tmp_path / "lorif.toml").sources]
    assert paths == ["ü?.jsonl", 'a "b" \\ c']


def test_a_table_beside_code_is_data_where_its_columns_say_so_and_settings_are_not(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("question,answer\nwhat opens a file,the with statement\n")
    (tmp_path / "prices.csv").write_text("item,price\ntea,3\n")
    (tmp_path / "package.json").write_text('{"name": "web", "scripts": {"test": "true"}}')
    (tmp_path / "notes.txt").write_text("buy tea")
    (found,) = look_around(tmp_path).sources
    assert (found.source.path, found.is_readable) == ("pairs.csv", True)
    assert (found.source.columns.prompt, found.source.columns.completion) == ("question", "answer")
