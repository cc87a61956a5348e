"""`lorif select`."""

import json
from pathlib import Path

import pyarrow.parquet as pq
from click.testing import CliRunner

from lorif_assets.cli.main import main
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject


def test_a_selection_is_written_and_told_by_source(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("select", "--query-set", QUERY_SET, "--top", "25%", "--output", "picked[a].parquet", *config)
    assert result.exit_code == 0, result.output
    assert f"selected at {CHECKPOINTS[1]}" in result.output
    assert "25.0%" in result.output
    assert "9 rows: written to picked[a].parquet." in result.output
    assert pq.read_table("picked[a].parquet").num_rows == 9


def test_a_dry_run_writes_nothing_and_says_what_it_would_as_json(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    result = lorif("select", "--top", 3, "--by", "topic", "--without-duplicates", "--dry-run", "--json", *config)
    assert result.exit_code == 0, result.output
    lineage = json.loads(result.stdout)
    assert (lineage["rows"], lineage["of"], lineage["sources"]["docs"]["rows"]) == (6, 36, 6)
    assert lineage["command"].endswith("--top 3 --by topic --without-duplicates")
    assert not list(Path().iterdir())


def test_what_is_taken_of_each_group_is_told(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("select", "--top", 3, "--by", "topic", "--dry-run", *config)
    assert result.exit_code == 0, result.output
    (heading,) = (line for line in result.output.splitlines() if "topic" in line and "rows" in line)
    rows = [line.split("│")[1:-1] for line in result.output.splitlines() if line.startswith("│")]
    by_topic = {name.strip(): (taken.strip(), of.strip()) for name, taken, of in (row for row in rows if len(row) == 3)}
    assert heading
    assert len(by_topic) == 2
    assert {taken for taken, _ in by_topic.values()} == {"3"}
    assert sum(int(of) for _, of in by_topic.values()) == 36


def test_where_to_write_is_named_or_nothing_is_written(lorif: Lorif, config: tuple[str, Path]) -> None:
    for arguments in ((), ("--output", "rows", "--dry-run")):
        result = lorif("select", "--top", 3, *arguments, *config)
        assert result.exit_code == 2
        assert "Name an --output to write to, or ask for a --dry-run" in result.output


def test_a_weight_that_is_no_number_is_refused(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("select", "--query-set", f"{QUERY_SET}=much", "--top", 3, "--dry-run", *config)
    assert result.exit_code == 2
    assert "a number is expected after =" in result.output


def test_measuring_selections_without_query_sets_says_what_to_set(lorif: Lorif, config: tuple[str, Path]) -> None:
    result = lorif("evaluate", "--selection", *config)
    assert result.exit_code == 1
    assert "name query sets in `evaluation.selection_query_sets`" in " ".join(result.stderr.split())


def test_rows_are_named_by_a_file_of_ids_and_kept_or_dropped(lorif: Lorif, config: tuple[str, Path]) -> None:
    Path("ids.txt").write_text("doc0-1\ndocs-00001-00000/doc1-2\n")
    result = lorif("select", "--ids", "ids.txt", "--output", "picked.jsonl", *config)
    assert result.exit_code == 0, result.output
    assert "selected by id" in result.output
    assert "value" not in result.output
    assert [json.loads(line)["id"] for line in Path("picked.jsonl").read_text().splitlines()] == ["doc0-1", "doc1-2"]
    result = lorif("select", "--ids", "ids.txt", "--exclude", "--dry-run", *config)
    assert "34 rows: nothing is written." in result.output


def test_ids_come_from_standard_input_too(lorif: Lorif, config: tuple[str, Path]) -> None:
    del lorif
    arguments = ["select", "--ids", "-", "--dry-run", "--json", *map(str, config)]
    result = CliRunner().invoke(main, arguments, input="doc0-1\n")
    assert json.loads(result.stdout)["rows"] == 1
    result = CliRunner().invoke(main, arguments, input="doc0-1\nnone\n")
    assert result.exit_code == 1
    assert "1 of 2 ids is of no row of the stored training data: 'none'" in " ".join(result.stderr.split())


def test_an_output_of_a_kind_that_is_not_written_is_refused_and_one_in_capitals_is_a_file(
    lorif: Lorif, config: tuple[str, Path]
) -> None:
    select = ("select", "--query-set", QUERY_SET, "--top", 2)
    refused = lorif(*select, "--output", "picked.csv", *config)
    assert refused.exit_code == 1
    assert "not as .csv" in " ".join(refused.stderr.split())
    assert not Path("picked.csv").exists()
    assert lorif(*select, "--output", "picked.PARQUET", *config).exit_code == 0
    assert pq.read_table("picked.PARQUET").num_rows == 2
