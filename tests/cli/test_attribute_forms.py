"""`lorif attribute` for programs: a file of questions, answers as JSON and as CSV."""

import io
import json
from pathlib import Path

import polars as pl
import pytest

from lorif_assets.lake.attribution_tables import QUERY_SCORES, RELATIVE_SCORES
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

QUESTION = ("--prompt", "the with statement", "--completion", " opens a file", "--top", 3)


def test_an_answer_as_json_is_an_object_of_what_the_lake_stores(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    answer = json.loads(lorif("attribute", *QUESTION, "--json", *config).stdout)
    assert (answer["checkpoint"], answer["prompt"], answer["completion"]) == (CHECKPOINTS[1], QUESTION[1], QUESTION[3])
    assert (answer["ranking"], answer["n_examples"]) == ("plain", 36)
    stored = private_project.table(QUERY_SCORES, checkpoint=CHECKPOINTS[1], query_id="q0")
    for side, name in (("highest", "proponents"), ("lowest", "opponents")):
        wanted = stored.filter(side=side).sort("rank").head(3)
        assert [row["example_id"] for row in answer[name]] == wanted["example_id"].to_list()
        assert [row["score"] for row in answer[name]] == pytest.approx(wanted["score"].to_list(), rel=1e-3)
        assert all(row["metadata"]["topic"] in {"with", "files"} and row["text"] for row in answer[name])


def test_the_questions_of_a_file_are_answered_one_object_a_line_as_the_query_set_is(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    file = private_project.root / f"queries/{QUERY_SET}.jsonl"
    result = lorif("attribute", "--queries", file, "--json", "--ranking", "relative", "--top", 2, *config)
    assert result.exit_code == 0, result.output
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["query_id"] for answer in answers] == ["q0", "q1", "q2"]
    for answer in answers:
        stored = private_project.table(RELATIVE_SCORES, checkpoint=CHECKPOINTS[1], query_id=answer["query_id"])
        leading = stored.filter(side="highest").sort("rank")["example_id"].to_list()[:2]
        assert [row["example_id"] for row in answer["proponents"]] == leading
        assert all("relative_score" in row for row in answer["opponents"])


def test_answers_as_csv_are_one_table(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    file = private_project.root / f"queries/{QUERY_SET}.jsonl"
    table = pl.read_csv(io.StringIO(lorif("attribute", "--queries", file, "--csv", "--top", 2, *config).stdout))
    assert table.columns == ["query_id", "side", "rank", "score", "shard", "example_id", "text", "metadata"]
    assert table.select("query_id", "side", "rank").rows() == [
        (query, side, rank) for query in ("q0", "q1", "q2") for side in ("proponent", "opponent") for rank in (1, 2)
    ]


def test_the_questions_of_a_file_are_printed_one_after_the_other(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    file = private_project.root / f"queries/{QUERY_SET}.jsonl"
    result = lorif("attribute", "--queries", file, "--checkpoint", CHECKPOINTS[0], "--top", 1, *config)
    assert result.output.count(f"{CHECKPOINTS[0]}, loss ") == 3
    assert "q2  a file fails by an error" in result.output


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ('{"id": "a", "text": "a file"}\n{"id": "b", "text": ""}', "query 1 cannot be scored: text is empty"),
        ('{"id": "a", "text": "a"}', "the query 'a' cannot be scored: no target token"),
        ("{not json", "row 0 cannot be scored: malformed JSON"),
        ('{"id": "a", "words": "a file"}', "no column named text, prompt and completion"),
    ],
)
def test_a_question_of_a_file_that_cannot_be_scored_is_a_message_that_names_it(
    lorif: Lorif, config: tuple[str, Path], rows: str, expected: str
) -> None:
    Path("asked.jsonl").write_text(rows)
    result = lorif("attribute", "--queries", "asked.jsonl", *config)
    assert result.exit_code == 1
    assert expected in " ".join(result.stderr.split())


def test_a_file_of_questions_stands_in_the_place_of_a_question(lorif: Lorif, config: tuple[str, Path]) -> None:
    Path("asked.jsonl").write_text('{"text": "a file"}')
    result = lorif("attribute", *QUESTION, "--queries", "asked.jsonl", *config)
    assert result.exit_code == 2
    assert "one of --completion, --assistant and --messages, or a file of --queries" in result.output


def test_more_questions_than_memory_holds_at_once_get_the_same_answers(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = private_project.root / f"queries/{QUERY_SET}.jsonl"
    together = lorif("attribute", "--queries", file, "--csv", *config).stdout
    monkeypatch.setattr("lorif_assets.attribution.ask.queries_per_scan", lambda *_: 1)
    one_by_one = lorif("attribute", "--queries", file, "--csv", *config).stdout
    names = [pl.read_csv(io.StringIO(text))["example_id"].to_list() for text in (together, one_by_one)]
    assert names[0] == names[1]


def test_several_completions_are_asked_about_together_with_weights_as_a_query_file_does(
    lorif: Lorif, config: tuple[str, Path], tmp_path: Path
) -> None:
    members = [
        {"prompt": QUESTION[1], "completion": QUESTION[3]},
        {"prompt": "its block", "completion": " ends", "weight": -0.5},
    ]
    (tmp_path / "asked.jsonl").write_text(json.dumps({"id": "query", "weighted": members}))
    wanted = lorif("attribute", "--queries", tmp_path / "asked.jsonl", "--top", 3, "--json", *config)
    found = lorif("attribute", *QUESTION, "--also", "its block", " ends", -0.5, "--json", *config)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads(wanted.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--messages", "chat.json", "--also", "b", "c", 1), "sets of other chats are in files of --queries"),
        (("--completion", "a", "--against", "d", "--also", "b", "c", 1), "take one of them"),
    ],
)
def test_several_completions_go_with_no_other_form(
    lorif: Lorif, config: tuple[str, Path], arguments: tuple[object, ...], expected: str
) -> None:
    Path("chat.json").write_text('[{"role": "assistant", "content": "a"}]')
    result = lorif("attribute", *arguments, *config)
    assert result.exit_code == 2
    assert expected in " ".join(result.output.split())


def test_an_answer_to_a_question_that_was_cut_says_so_in_each_form(lorif: Lorif, config: tuple[str, Path]) -> None:
    question = ("attribute", "--prompt", "the with statement " * 24, "--completion", " opens a file", "--top", 1)
    said = "What was asked is too long, and was cut: "
    assert said in " ".join(lorif(*question, *config).stdout.split())
    assert json.loads(lorif(*question, "--json", *config).stdout)["notice"].startswith(said)
    assert said in " ".join(lorif(*question, "--csv", *config).stderr.split())
