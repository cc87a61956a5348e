"""The command `lorif`, as a person meets it: answers, exit codes and messages."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import polars as pl
import pytest
from click.testing import Result
from rich.console import Console

from lorif_assets.cli.main import COMMANDS, main
from lorif_assets.data.passages import with_passages
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, RELATIVE_SCORES, SVD_PRECONDITIONERS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.pages.terminal import print_influences
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject


def message(result: Result) -> str:
    """What an expected error says; it ends the command with 1, without traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.stderr.startswith("error: ")
    return " ".join(result.stderr.split())


# --- vacuum ---------------------------------------------------------------------------------------------------------


def test_vacuum_lists_what_it_would_delete_and_then_deletes_it(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    orphan = private_project.lake.write_tensors("curvature_states/x", {})
    os.utime(Path(private_project.lake.root, orphan), (1, 1))
    listed = lorif("vacuum", "--dry-run", *config)
    assert orphan in listed.output
    assert "1 files, 0.0 MB, would be deleted" in listed.output
    assert Path(private_project.lake.root, orphan).exists()
    assert lorif("vacuum", *config).output.endswith("1 files, 0.0 MB, deleted\n")
    assert lorif("vacuum", *config).output == "0 files, 0.0 MB, deleted\n"


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_does_not_overwrite(lorif: Lorif) -> None:
    Path("lorif.toml").write_text("# mine")
    assert "lorif.toml already exists" in message(lorif("init"))
    assert Path("lorif.toml").read_text() == "# mine"
    assert lorif("init", "other.toml").exit_code == 0
    assert Path("other.toml").is_file()


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_ends_with_0_where_all_is_there(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("doctor", *config)
    assert result.exit_code == 0
    assert "stored per example" in result.output


def test_doctor_ends_with_1_where_something_is_missing(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    shutil.rmtree(private_project.root / "data")
    result = lorif("doctor", *config)
    assert result.exit_code == 1
    assert "nothing is at" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [["doctor"], ["status"], ["materialize"], ["attribute", "--completion", "x"]])
def test_settings_that_are_wrong_or_not_there_are_a_message(lorif: Lorif, command: list[str]) -> None:
    Path("wrong.toml").write_text("[recipe]\nr = -1")
    assert "recipe.r: Input should be greater than or equal to 0" in message(lorif(*command, "--config", "wrong.toml"))
    assert "there is no settings file" in message(lorif(*command, "--config", "gone.toml"))


# --- status ----------------------------------------------------------------------------------------------------------


def test_status_says_what_is_up_to_date(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("status", *config)
    assert result.exit_code == 0
    assert "active checkpoints: step-000100, step-000200" in result.output
    rejected = r"^training_examples: 2 rows set aside: malformed JSON: .* \(1\); text is empty \(1\)$"
    assert re.findall(r"^.*set aside.*$", result.output, re.MULTILINE) == re.findall(
        rejected, result.output, re.MULTILINE
    )
    assert "2 rows set aside" in result.output
    assert result.output.count("up to date\n") + len(re.findall(r"up to date +│", result.output)) >= 7


def test_status_says_where_to_start_only_where_something_is_out_of_date(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    lorif("materialize", *config)
    assert "start with the first one" not in lorif("status", *config).output
    (private_project.root / f"queries/{QUERY_SET}.jsonl").write_text('{"id": "a", "text": "a file opens"}')
    assert "start with the first one" in " ".join(lorif("status", *config).output.split())


def test_in_a_narrow_terminal_names_of_assets_are_whole(
    lorif: Lorif, config: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output = lorif("status", *config).output
    names = [row["asset"] for row in json.loads(lorif("status", "--json", *config).stdout)["assets"]]
    assert [name for name in names if not re.search(rf"^│ {name} ", output, re.MULTILINE)] == []
    assert "…" not in output


def test_status_as_json_has_a_row_for_each_asset(lorif: Lorif, config: tuple[str, Path]) -> None:
    found = json.loads(lorif("status", "--json", *config).stdout)
    assert set(found["active_checkpoints"]) <= set(CHECKPOINTS)
    rows = {row["asset"]: row for row in found["assets"]}
    assert rows["query_scores"] == {
        "asset": "query_scores", "missing": 0, "stale": 0, "reason": None, "partition": None
    }  # fmt: skip


_OF_A_PROJECT = [
    "doctor",
    "evaluate",
    "explore",
    "materialize",
    "preview",
    "report",
    "status",
    "tune",
    "ui",
    "vacuum",
    "verify",
]


@pytest.mark.parametrize("command", _OF_A_PROJECT)
def test_where_no_project_is_a_command_says_so_and_leaves_nothing_behind(lorif: Lorif, command: str) -> None:
    result = lorif(command)
    assert result.exit_code == 1
    assert "there is no settings file" in message(result)
    assert not list(Path().iterdir())


def test_status_counts_what_is_missing_and_stale_and_says_why(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    output = lorif("status", *config).output
    rows = {cells[0]: cells[1:] for line in output.splitlines() if (cells := line.replace("│", " ").split())}
    assert rows["training_examples"][0] == "1"
    assert f"its source changed: {SHARDS[1]}" in " ".join(rows["training_examples"])
    assert " ".join(rows["query_examples"]) == "1 missing: more"


def test_status_of_a_lake_without_tables_is_all_missing(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    shutil.rmtree(private_project.root / "lake")
    result = lorif("status", *config)
    assert result.exit_code == 0
    assert f"missing: {SHARDS[0]}" in result.output


def test_status_where_the_checkpoints_are_gone_is_a_message(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    shutil.rmtree(private_project.root / "checkpoints")
    assert "does not exist; correct `checkpoints.path`" in message(lorif("status", *config))


def test_doctor_compares_tables_dagster_and_mlflow_on_request(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    lorif("materialize", *config)
    result = lorif("doctor", "--records", *config)
    assert result.exit_code == 1
    assert "training_examples: Dagster has no record of 3 partition(s)" in result.output
    assert lorif("materialize", "--rehash", *config).exit_code == 0
    assert "training_examples" not in lorif("doctor", "--records", *config).output
    shutil.rmtree(private_project.root / "lake")
    assert "the lake holds nothing of" in lorif("doctor", "--records", *config).output


def test_materialize_tells_of_rows_that_no_source_has_before_it_computes_anything_of_them(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    output = lorif("materialize", *config).output
    assert output.count("12 rows that stand nowhere else are still scored") == 1
    assert output.index("are still scored") < output.index("gradient_factors")


# --- withdraw --------------------------------------------------------------------------------------------------------


def test_withdraw_lists_what_it_would_take_out_and_then_takes_it_out(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    listed = lorif("withdraw", *config).output
    assert f"{SHARDS[1]}: 12 rows\nnothing was done; with --yes: 1 shard withdrawn" in listed
    assert "is no stored shard without a source" in message(lorif("withdraw", SHARDS[0], "--yes", *config))
    assert lorif("withdraw", SHARDS[1], "--yes", *config).exit_code == 0
    assert SHARDS[1] not in set(private_project.table(TRAINING_EXAMPLES)["shard"])
    assert "no stored shard without a source is left to decide about" in lorif("withdraw", *config).output


def test_withdraw_can_record_that_a_shard_stays_and_status_and_doctor_show_it(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    for command in ("status", "doctor"):
        assert "`lorif withdraw --keep` records that they stay" in " ".join(lorif(command, *config).output.split())
    assert "1 shard kept" in lorif("withdraw", "--keep", "--yes", *config).output
    assert SHARDS[1] in set(private_project.table(TRAINING_EXAMPLES)["shard"])
    for command in ("status", "doctor"):
        assert "kept, as was decided on" in " ".join(lorif(command, *config).output.split())
    assert "is left to decide about" in lorif("withdraw", *config).output


# --- materialize -----------------------------------------------------------------------------------------------------


def test_materialize_brings_everything_up_to_date_and_says_how_much(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    result = lorif("materialize", *config)
    assert result.exit_code == 0, result.output
    done = dict(line.split(maxsplit=1) for line in result.output.splitlines() if re.match(r"[a-z_]+ +(up|\d)", line))
    assert done["training_examples"] == "up to date"
    assert done["query_examples"] == "1 partition"
    assert done["query_scores"] == "2 partitions"
    assert re.search(
        r"^training_examples +up to date\n  2 rows set aside: malformed JSON: .* \(1\); text is empty \(1\)$",
        result.output,
        re.MULTILINE,
    )
    assert result.output.count("set aside") == 1
    assert (private_project.root / "dagster_home/dagster.yaml").is_file()
    assert not Path("dagster_home").exists()
    assert set(private_project.table(QUERY_SCORES)["query_set"]) == {QUERY_SET, "more"}


def test_materialize_without_a_terminal_prints_how_far_each_long_stage_is(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorif_assets.progress._LOG_EVERY_SECONDS", 0.0)
    settings = private_project.root / "lorif.toml"
    settings.write_text(settings.read_text().replace('curvature = "svd"', 'curvature = "ekfac"'))
    result = lorif("materialize", *config)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    for stage in ("K-FAC bases", "docs-0", "ekfac_preconditioners"):
        assert [line for line in lines if stage in line and "/s, " in line and " s left)" in line], (stage, lines)
    passed, total = re.findall(r"K-FAC bases: ([\d,]+) of ([\d,]+) tok", result.stderr)[-1]
    assert passed == total


def test_materialize_evaluates_the_checks_of_what_it_computed_and_prints_those_that_failed(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    # The id of a row in another shard.
    taken = private_project.table(TRAINING_EXAMPLES, shard=SHARDS[0])["example_id"][0]
    file = private_project.root / "data/00001.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(lines[0]), "id": taken}), *lines[1:]]))
    result = lorif("materialize", *config)
    assert result.exit_code == 0, result.output
    assert (
        f"check example_ids_are_unique of training_examples does not pass: 1 found wrong, the first: {taken}"
        in result.output
    )
    assert result.output.count("does not pass:") == 1
    assert "does not pass:" not in lorif("materialize", *config).output


def test_materialize_stops_where_too_many_rows_are_set_aside_with_the_reasons(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    for row in range(2):
        private_project.edit_shard(0, row, "")
    said = message(lorif("materialize", *config))
    assert "source 'docs': 4 of 38 rows are set aside so far" in said
    assert "`data.max_rejected_share` = 0.1 allows: text is empty (3); malformed JSON" in said
    assert "training_examples: 4 rows set aside: text is empty (3)" in lorif("status", *config).output


def test_materialize_without_any_complete_checkpoint_is_a_message_that_says_what_is_wrong(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    folder = private_project.root / "checkpoints"
    shutil.rmtree(folder / CHECKPOINTS[1])
    weights = folder / CHECKPOINTS[0] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "has no complete checkpoint" in (said := message(lorif("materialize", *config)))
    assert "cut short, or still being written" in said
    (folder / CHECKPOINTS[0] / "tokenizer.json").unlink()
    assert "has no tokenizer" in message(lorif("materialize", *config))
    shutil.rmtree(folder / CHECKPOINTS[0])
    assert message(lorif("materialize", *config)).endswith("has no complete checkpoint yet")


def test_what_fails_in_a_run_is_a_message(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").write_text('{"id": "x", "text": ""}')
    result = lorif("materialize", *config)
    # What was done for each asset stands before it.
    done, error = result.output.split("error: ")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert re.search(r"^training_examples +1 failed$", done, re.MULTILINE)
    assert re.search(r"^query_scores +up to date$", done, re.MULTILINE)
    assert error.startswith(f"materializing training_examples for {SHARDS[1]} failed")
    assert "text is empty" in error


# --- attribute -------------------------------------------------------------------------------------------------------


def test_attribute_prints_proponents_and_opponents_of_the_newest_checkpoint(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    result = lorif("attribute", "--prompt", "the with statement", "--completion", " opens a file", "--top", 3, *config)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{CHECKPOINTS[1]}, loss ")
    assert "36 examples" in result.output
    proponents, opponents = result.output.split("opponents: ")
    # The query set's first query is the same: its stored answer is the answer.
    stored = private_project.table(QUERY_SCORES, checkpoint=CHECKPOINTS[1], query_id="q0")
    texts = dict(private_project.table(TRAINING_EXAMPLES).select("example_id", "text").iter_rows())
    for side, printed in (("highest", proponents), ("lowest", opponents)):
        rows = stored.filter(pl.col("side") == side).sort("rank")
        names = rows["example_id"].to_list()
        assert re.findall(r"doc\d-\d+", printed) == names[:3]
        assert all(texts[name][:60] in printed for name in names[:3])
        assert f"{rows['score'][0]:.3g}" in printed


def test_attribute_can_rank_by_relative_influence_and_says_what_that_is_for(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    question = ("--prompt", "the with statement", "--completion", " opens a file", "--top", 3)
    result = lorif("attribute", *question, "--ranking", "relative", *config)
    assert result.exit_code == 0, result.output
    assert "relative: what is specific to this output for its size" in " ".join(result.output.split())
    proponents, opponents = result.output.split("opponents: ")
    stored = private_project.table(RELATIVE_SCORES, checkpoint=CHECKPOINTS[1], query_id="q0")
    for side, printed in (("highest", proponents), ("lowest", opponents)):
        rows = stored.filter(pl.col("side") == side).sort("rank")
        assert re.findall(r"doc\d-\d+", printed) == rows["example_id"].to_list()[:3]
        assert f"{rows['relative_score'][0]:.3g}" in printed
    assert lorif("attribute", *question, "--ranking", "loud", *config).exit_code == 2


def test_attribute_can_show_what_each_token_contributed(lorif: Lorif, config: tuple[str, Path]) -> None:
    question = ("attribute", "--prompt", "the with statement", "--completion", " opens a file", "--top", 2)
    result = lorif(*question, "--tokens", *config)
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert said.count("(from uncompressed gradients") == 4
    assert said.count("query: the with statement opens a file") == 4
    assert said.count("most: ") == 8
    refused = lorif(*question, "--tokens", "--ranking", "relative", *config)
    assert refused.exit_code == 2
    assert "--tokens shares out scores" in refused.stderr


def test_attribute_can_ask_about_a_span_or_a_contrast(lorif: Lorif, config: tuple[str, Path]) -> None:
    question = ("attribute", "--prompt", "the with statement", "--completion", " opens a file", "--top", 1)
    whole, span, contrast = (
        lorif(*question, *more, *config) for more in ((), ("--span", "opens"), ("--against", " ends"))
    )
    values = [
        re.search(rf"{name} (\S+) nats", result.output)
        for name, result in (("loss", whole), ("loss", span), ("difference of the losses", contrast))
    ]
    assert len({found[1] for found in values if found}) == 3
    assert "occurs 0 times" in message(lorif(*question, "--span", "closes", *config))


def test_attribute_without_a_prompt_takes_the_completion_as_text(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("attribute", "--completion", "a file fails", "--checkpoint", CHECKPOINTS[0], *config)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(CHECKPOINTS[0])


@pytest.fixture
def chat_config(config: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """The project, as if its tokenizers had always had a chat template."""
    load = Checkpoints.load_tokenizer

    def load_with_template(checkpoints: Checkpoints, files: CheckpointFiles) -> Any:
        tokenizer = load(checkpoints, files)
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        return tokenizer

    monkeypatch.setattr(Checkpoints, "load_tokenizer", load_with_template)
    return config


def test_several_chats_are_asked_about_together_as_a_query_file_does(
    lorif: Lorif, chat_config: tuple[str, Path]
) -> None:
    said = (("the with statement", " opens a file", 1), ("its block", " ends", -0.5))
    members = [
        {
            "messages": [
                {"role": "system", "content": "a file"},
                {"role": "user", "content": asked},
                {"role": "assistant", "content": answer},
            ],
            "weight": weight,
        }
        for asked, answer, weight in said
    ]
    Path("asked.jsonl").write_text(json.dumps({"id": "query", "weighted": members}))
    options = ("--json", "--top", 3, *chat_config)
    first = ("--system", "a file", "--user", said[0][0], "--assistant", said[0][1])
    found = lorif("attribute", *first, "--also", *said[1], *options)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads(lorif("attribute", "--queries", "asked.jsonl", *options).stdout)
    assert (
        json.loads(lorif("attribute", *first, *options).stdout)["proponents"] != json.loads(found.stdout)["proponents"]
    )


@pytest.mark.parametrize("asked", [(), ("--span", "opens"), ("--against", " ends")])
def test_a_chat_and_a_span_or_a_contrast_in_it_go_through_the_chat_template(
    lorif: Lorif, chat_config: tuple[str, Path], asked: tuple[str, ...]
) -> None:
    turns = [{"role": "user", "content": "the with statement"}, {"role": "assistant", "content": " opens a file"}]
    Path("chat.json").write_text(json.dumps(turns))
    Path("with_tools.json").write_text(json.dumps({"messages": turns, "tools": []}))
    options = (*asked, "--checkpoint", CHECKPOINTS[1], *chat_config)
    answers = [
        lorif("attribute", *question, *options)
        for question in (
            ("--messages", "chat.json"),
            ("--messages", "with_tools.json"),
            ("--user", "the with statement", "--assistant", " opens a file"),
            # The template writes a chat as this prompt and completion.
            ("--prompt", "the with statement", "--completion", " opens a file"),
        )
    ]
    assert [answer.exit_code for answer in answers] == [0] * 4, answers[0].output
    assert len({answer.output for answer in answers}) == 1
    system = lorif("attribute", "--system", "a file", "--user", "the with", "--assistant", " opens a file", *options)
    assert system.exit_code == 0
    assert system.output != answers[0].output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "one of --completion, --assistant and --messages"),
        (("--completion", "a", "--assistant", "b"), "one of --completion, --assistant and --messages"),
        (("--assistant", "a", "--prompt", "b"), "--prompt goes with --completion"),
        (("--completion", "a", "--user", "b"), "--user and --system go with --assistant"),
    ],
)
def test_attribute_of_a_question_in_two_forms_is_refused(
    lorif: Lorif, arguments: tuple[str, ...], expected: str
) -> None:
    result = lorif("attribute", *arguments)
    assert result.exit_code == 2
    assert expected in result.output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "chat.json is no JSON: Expecting property name"),
        ('{"turns": []}', "the chat: messages is null, not a list of {role, content}. Give a list"),
        ('[{"role": "user", "content": "a"}]', "the chat: no assistant message with content"),
    ],
)
def test_attribute_of_a_file_that_holds_no_chat_is_a_message(
    lorif: Lorif, config: tuple[str, Path], content: str, expected: str
) -> None:
    Path("chat.json").write_text(content)
    assert expected in message(lorif("attribute", "--messages", "chat.json", *config))


def test_attribute_of_a_chat_without_a_chat_template_is_a_message(lorif: Lorif, config: tuple[str, Path]) -> None:
    assert "has no chat template" in message(lorif("attribute", "--assistant", "a file", *config))


def test_attribute_can_show_more_than_the_recipe_keeps(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("attribute", "--completion", "a file fails", "--top", 8, *config)
    assert len(re.findall(r"doc\d-\d+", result.output)) == 16


def test_an_example_that_was_withdrawn_meanwhile_is_shown_as_such(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    nothing = TRAINING_EXAMPLES.columns.empty_table()
    for shard in SHARDS:
        private_project.lake.replace(TRAINING_EXAMPLES, {"shard": shard}, nothing)
    result = lorif("attribute", "--completion", "a file fails", *config)
    assert "(no longer in the training data)" in result.output


@pytest.mark.parametrize("completion", ["", "x"])
def test_a_completion_without_a_token_to_score_is_a_message(
    lorif: Lorif, config: tuple[str, Path], completion: str
) -> None:
    assert "the completion cannot be scored: no target token" in message(
        lorif("attribute", "--completion", completion, *config)
    )


def test_the_two_ends_of_a_ranking_of_every_pair_are_printed_as_proponents_and_opponents(
    tiny_project: TinyProject,
) -> None:
    ranking = pl.DataFrame(
        {"side": ["all"] * 4, "rank": [1, 2, 3, 4], "shard": [SHARDS[0]] * 4, "score": [2.0, 1.0, -1.0, -2.0]}
    ).with_columns(example_id=pl.format("doc0-{}", "rank"))
    console = Console(file=io.StringIO(), width=150)
    print_influences(console, with_passages(tiny_project.lake, ranking), n_rows=2)
    assert isinstance(console.file, io.StringIO)
    assert re.findall(r"doc0-\d", console.file.getvalue()) == ["doc0-1", "doc0-2", "doc0-4", "doc0-3"]


def test_a_checkpoint_that_is_not_attributed_is_a_message(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    said = message(lorif("attribute", "--completion", "a file", "--checkpoint", "step-9", *config))
    assert "'step-9' cannot be asked: it is not attributed, or its files are gone; " in said
    assert f"those that can be: {', '.join(CHECKPOINTS)}" in said
    shutil.rmtree(private_project.root / "lake" / SVD_PRECONDITIONERS.name)
    said = message(lorif("attribute", "--completion", "a file", *config))
    assert "no checkpoint is attributed yet; run `lorif materialize`" in said


def test_a_file_of_factors_that_is_gone_is_a_message(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (file, *_) = private_project.lake.factor_files(CHECKPOINTS[1])
    Path(private_project.lake.root, GRADIENT_FACTORS.name, file.path).unlink()
    said = message(lorif("attribute", "--completion", "a file", *config))
    assert "gradient_factors" in said
    assert "materialize" in said


# --- preview ---------------------------------------------------------------------------------------------------------


def test_preview_prints_the_tokens_of_sources_and_query_sets_and_which_carry_loss(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    result = lorif("preview", "--rows", 2, *config)
    assert result.exit_code == 0, result.output
    assert f"docs (data), by the tokenizer of {CHECKPOINTS[1]}" in result.output
    assert re.findall(r"doc\d-\d+|q\d", result.output) == ["doc0-0", "doc0-1", "q0", "q1"]
    text = private_project.table(TRAINING_EXAMPLES, example_id="doc0-0")["text"][0]
    # Nothing predicts the first token.
    assert re.search(rf"{text[0]}\w*\[\[", result.output)
    assert "the with statement[[ opens a file]]" in result.output


def test_preview_reads_by_the_newest_checkpoint_that_can_be_read(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    newest = private_project.root / "checkpoints" / CHECKPOINTS[-1]
    (newest / "model.safetensors").rename(newest / "pytorch_model.bin")
    result = lorif("preview", "--source", "docs", "--rows", 1, *config)
    assert f"docs (data), by the tokenizer of {CHECKPOINTS[-2]}" in result.output


def test_preview_of_a_query_set_as_json_is_one_object_a_line(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("preview", "--queries", QUERY_SET, "--checkpoint", CHECKPOINTS[0], "--json", *config)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["example_id"] for row in rows] == ["q0", "q1", "q2"]
    for row in rows:
        assert set(row) == {
            "example_id",
            "place",
            "input_ids",
            "labels",
            "pieces",
            "cut",
            "rejected",
            "notices",
            "weight",
        }
        assert len(row["input_ids"]) == len(row["labels"])
        assert (row["cut"], row["rejected"]) == (None, None)
    assert rows[1]["pieces"] == [{"text": "its block", "loss": False}, {"text": " ends", "loss": True}]


def test_preview_says_what_is_cut_and_what_is_set_aside(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    long = json.dumps({"id": "long", "text": "the with statement opens a file " * 40})
    (private_project.root / "data/00000.jsonl").write_text(f'{long}\n{{"id": "empty", "text": ""}}\n{{not json')
    shown = lorif("preview", "--source", "docs", "--rows", 3, *config).output
    assert "cut: 0 tokens in front and" in shown
    assert "at most 48 are kept" in shown
    assert "empty  set aside: text is empty" in shown
    assert f"{SHARDS[0]}/000002  set aside: malformed JSON" in shown
    first, *others = map(
        json.loads, lorif("preview", "--source", "docs", "--rows", 3, "--json", *config).output.splitlines()
    )
    assert len(first["input_ids"]) == 48
    assert "by the rule keep_start" in first["cut"]
    assert [row["rejected"].partition(":")[0] for row in others] == ["text is empty", "malformed JSON"]
    assert [row["input_ids"] for row in others] == [[], []]


def test_preview_shows_eos_behind_training_texts_and_not_behind_queries(
    lorif: Lorif, config: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_RECIPE__APPEND_EOS", "true")
    rows = [json.loads(line) for line in lorif("preview", "--rows", 1, "--json", *config).output.splitlines()]
    text, query = ("".join(piece["text"] for piece in row["pieces"]) for row in rows)
    assert text.endswith("<eos>")
    assert rows[0]["pieces"][-1]["loss"]
    assert query == "the with statement opens a file"


def test_preview_tells_a_prompt_that_ends_within_a_token(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    query = {"id": "q", "prompt": "the with statement opens ", "completion": "a file"}
    (private_project.root / "queries" / f"{QUERY_SET}.jsonl").write_text(json.dumps(query))
    shown = lorif("preview", "--queries", QUERY_SET, *config).output
    assert "one token holds the end of the prompt and the beginning of the completion" in shown
    assert "the with statement opens a[[ file]]" in shown


def test_preview_loads_no_weights(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    for name in CHECKPOINTS:
        (private_project.root / "checkpoints" / name / "model.safetensors").write_bytes(b"")
    assert lorif("preview", "--source", "docs", *config).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--source", "nothing"), "there is no source 'nothing'; the settings have docs"),
        (("--source", "docs", "--queries", QUERY_SET), "exclude each other"),
        (("--checkpoint", "step-9"), "there is no checkpoint 'step-9'"),
        (("--queries", "nothing"), "there is no query set 'nothing'"),
    ],
)
def test_preview_of_what_is_not_there_is_a_message(
    lorif: Lorif, config: tuple[str, Path], arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in message(lorif("preview", *arguments, *config))


# --- The command itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_as_the_list_of_commands_does(lorif: Lorif, name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command
    assert command.help == COMMANDS[name]
    assert lorif(name, "--help").exit_code == 0


def test_help_lists_every_command_and_loads_none(tmp_path: Path) -> None:
    listed = "import sys; from lorif_assets.cli.main import COMMANDS, main; main(['--help'], standalone_mode=False); "
    loaded = "print([name for name in ('torch', 'dagster', 'mlflow', 'polars') if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", listed + loaded], capture_output=True, text=True, check=True, timeout=60
    )
    assert all(f"\n  {name} " in found.stdout for name in COMMANDS)
    assert found.stdout.splitlines()[-1] == "[]"


def test_a_command_that_is_not_there_is_a_message(lorif: Lorif) -> None:
    result = lorif("nonsense")
    assert result.exit_code == 2
    assert "No such command 'nonsense'" in result.output


def test_ui_starts_dagster_on_the_project(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    started: list[tuple[str, list[str], str, str]] = []
    root = private_project.root

    def execute(program: str, arguments: list[str]) -> None:
        started.append((program, arguments, os.environ["DAGSTER_HOME"], os.environ["LORIF_CONFIG"]))

    monkeypatch.setattr(os, "execv", execute)
    here = Path.cwd()
    lorif("ui", "--port", 4000, *config)
    # A file `.env` of the folder that Dagster starts in would go first.
    assert Path.cwd() == root / "dagster_home"
    os.chdir(here)
    monkeypatch.setenv("DAGSTER_HOME", "home")
    lorif("ui", "--port", 4000, *config)
    for program, arguments, home, settings in started:
        assert Path(program).name == "dagster"
        assert arguments[1:3] == ["dev", "-m"]
        assert arguments[3:] == ["lorif_assets.definitions", "--working-directory", str(root), "--port", "4000"]
        assert settings == str(config[1])
        assert Path(home, "dagster.yaml").is_file()
    assert [home for _, _, home, _ in started] == [str(root / "dagster_home"), str(here / "home")]
