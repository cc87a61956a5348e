"""One thing that cannot be read keeps nothing else from going on; the command ends with 1 and names it."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from lorif_assets.lake.attribution_tables import CHECKPOINTS as CHECKPOINT_TABLE
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, REPORTS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

GOOD = {"id": "new", "text": "a new file ends with an error"}


def add_source(project: TinyProject, files: dict[str, bytes], **settings: str) -> None:
    """Give the project a second source of these files."""
    for name, content in files.items():
        file = project.root / "more" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
    fields = "".join(f'{name} = "{value}"\n' for name, value in {"name": "more", "path": "more", **settings}.items())
    toml = project.root / "lorif.toml"
    toml.write_text(f'[[sources]]\n{fields}columns = {{ id = "id", text = "text" }}\n{toml.read_text()}')


def parquet(rows: list[dict[str, str]], folder: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), folder / "written.parquet")
    return (folder / "written.parquet").read_bytes()


def lines(*rows: dict[str, str]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def damaged_parquet(tmp_path: Path) -> tuple[str, bytes, bytes]:
    whole = parquet([GOOD], tmp_path)
    return ".parquet", whole, whole[:-40]


def gzip_that_ends_early(tmp_path: Path) -> tuple[str, bytes, bytes]:
    del tmp_path
    whole = gzip.compress(lines(GOOD))
    return ".jsonl.gz", whole, gzip.compress(os.urandom(4096).hex().encode())[:-100]


def broken_json(tmp_path: Path) -> tuple[str, bytes, bytes]:
    del tmp_path
    return ".json", b"[" + lines(GOOD) + b"]", b'[{"id": "x", "text"'


def no_usable_row(tmp_path: Path) -> tuple[str, bytes, bytes]:
    del tmp_path
    return ".jsonl", lines(GOOD), b'{"id": "x", "text": ""}\n{"id": "y", "text": null}\n\xff\xff'


FAULTS: dict[str, tuple[Callable[[Path], tuple[str, bytes, bytes]], str]] = {
    "damaged Parquet": (damaged_parquet, "cannot be read as a Parquet file"),
    "gzip that ends early": (gzip_that_ends_early, "Check that the file is complete"),
    "broken JSON": (broken_json, "is no JSON array of rows that can be read"),
    "no usable row": (no_usable_row, "none of 3 rows can be used"),
}


def said(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


# One of them always; the others take a minute each to end in the same way.
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault == "broken JSON" else pytest.mark.slow) for fault in FAULTS]
)
def test_of_training_data_the_other_files_go_on(
    fault: str, lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, tmp_path: Path
) -> None:
    make, message = FAULTS[fault]
    suffix, good, bad = make(tmp_path)
    add_source(private_project, {f"bad{suffix}": bad, f"good{suffix}": good})
    output = said(lorif("materialize", *config))
    assert "materializing training_examples for more-bad-00000" in output
    assert message in output
    assert output.count("failed:") == 1, "what was computed without it failed too"
    for checkpoint in CHECKPOINTS:
        stored = private_project.table(GRADIENT_FACTORS, checkpoint=checkpoint)
        assert set(stored["shard"]) == {*SHARDS, "more-good-00000"}
        assert set(private_project.table(QUERY_SCORES, checkpoint=checkpoint)["query_set"]) == {QUERY_SET}
    # All but the bad shard is up to date, and a second look does no more.
    project = TinyProject.open(private_project.root, private_project.instance)
    assert {name: set(project.stale(name)) for name in ("training_examples", "query_scores", "attribution_report")} == {
        "training_examples": {"more-bad-00000"},
        "query_scores": set(),
        "attribution_report": set(),
    }
    assert lorif("status", *config).exit_code == 0
    assert "more-bad-00000" in lorif("status", *config).output
    doctor = said(lorif("doctor", *config))
    assert "fault source more" in doctor
    assert message in doctor
    # Mended, it is read.
    (private_project.root / f"more/bad{suffix}").write_bytes(
        good.replace(b"new", b"n2w") if suffix == ".json" else good
    )
    result = lorif("materialize", *config)
    assert result.exit_code == 0, result.output
    assert "more-bad-00000" in set(private_project.table(TRAINING_EXAMPLES)["shard"])


def test_a_file_that_was_read_and_cannot_be_any_more_keeps_what_was_stored_of_it(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    before = private_project.table(TRAINING_EXAMPLES).sort("shard", "row")
    toml = private_project.root / "lorif.toml"
    toml.write_text(toml.read_text() + '\n[automation]\non_removed = "withdraw"\n')
    (private_project.root / "data/00001.jsonl").rename(private_project.root / "data/00001.jsonl.gz")
    (private_project.root / "data/00001.jsonl.gz").write_bytes(b"\x1f\x8b cut")
    assert "00001.jsonl.gz cannot be read" in said(lorif("materialize", *config))
    assert private_project.table(TRAINING_EXAMPLES).sort("shard", "row").equals(before)


def test_a_source_that_is_gone_keeps_the_others_from_nothing(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    add_source(private_project, {"a.jsonl": lines(GOOD)}, path="nowhere")
    private_project.edit_shard(1, 4, "an error closes the file")
    output = said(lorif("materialize", *config))
    assert "training_examples 1 partition" in output
    assert "source more: source 'more': nothing is at" in output
    assert "correct the source's `path`" in output
    status = lorif("status", *config)
    assert status.exit_code == 0
    assert "source more: source 'more': nothing is at" in " ".join(status.output.split())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b"", "is empty: it has no rows"),
        ("bad.jsonl", b'[{"prompt": "a"}]', "is a JSON array, not JSON Lines"),
        ("bad.parquet", b"PAR1 no more", "cannot be read as a Parquet file"),
        ("bad.jsonl", b'{"id": "q", "prompt": "a", "completion": ""}', "completion is empty"),
        ("bad.jsonl", b'{"question": "a"}', "no column"),
    ],
)
def test_of_query_files_the_others_go_on(
    name: str, content: bytes, message: str, lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    (private_project.root / "queries" / name).write_bytes(content)
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    output = said(lorif("materialize", *config))
    assert "materializing query_examples for bad" in output
    assert message in output
    assert set(private_project.table(QUERY_SCORES)["query_set"]) == {QUERY_SET, "more"}
    status = lorif("status", *config)
    assert status.exit_code == 0
    assert "bad" in status.output


def test_two_query_files_of_one_name_keep_the_others_from_nothing(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    for name in ("twice.jsonl", "twice.parquet", "more.jsonl"):
        (private_project.root / "queries" / name).write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    assert "has two query files named 'twice'" in said(lorif("materialize", *config))
    assert set(private_project.table(QUERY_SCORES)["query_set"]) == {QUERY_SET, "more"}
    doctor = said(lorif("doctor", *config))
    assert "has two query files named 'twice'" in doctor
    assert "The others: more, questions" in doctor


def test_of_checkpoints_the_others_go_on(lorif: Lorif, config: tuple[str, Path], private_project: TinyProject) -> None:
    root = private_project.root / "checkpoints"
    shutil.copytree(root / CHECKPOINTS[1], root / "step-000300")
    (root / "step-000300/config.json").write_text('{"model_type": "nobody-knows-this"}')
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    output = said(lorif("materialize", *config))
    assert "materializing checkpoints for step-000300 failed" in output
    assert set(private_project.table(CHECKPOINT_TABLE)["checkpoint"]) == set(CHECKPOINTS)
    assert set(private_project.table(REPORTS, query_set="more")["checkpoint"]) == set(CHECKPOINTS)


def test_a_checkpoint_that_lacks_something_is_named_once_nobody_can_be_writing_it(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    folder = private_project.root / "checkpoints/step-000300"
    shutil.copytree(private_project.root / "checkpoints" / CHECKPOINTS[1], folder)
    (folder / "tokenizer.json").unlink()
    assert lorif("materialize", *config).exit_code == 0
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))
    assert "checkpoint step-000300: " in (output := said(lorif("materialize", *config)))
    assert "has no tokenizer" in output


def test_a_checkpoint_with_half_a_configuration_is_one_that_lacks_something(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    folder = private_project.root / "checkpoints/step-000300"
    shutil.copytree(private_project.root / "checkpoints" / CHECKPOINTS[1], folder)
    (folder / "config.json").write_text("{")
    being_written = lorif("materialize", *config)
    assert being_written.exit_code == 0
    assert "step-000300 is left out" in " ".join(being_written.output.split())
    for path in (folder, *folder.iterdir()):
        os.utime(path, (1, 1))
    assert "is no configuration" in said(lorif("materialize", *config))
