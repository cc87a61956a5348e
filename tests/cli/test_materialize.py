"""`lorif materialize`: some of what is active, what it would do, how far it is, and what an interruption leaves."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.automation.pools import pool_holders
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, REPORTS
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject


@pytest.fixture
def more(private_project: TinyProject) -> TinyProject:
    """The project with another query set, which nothing is computed for."""
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    return private_project


def scored(project: TinyProject) -> set[tuple[str, str]]:
    return {*project.table(QUERY_SCORES).select("checkpoint", "query_set").unique().iter_rows()}


STORED = {(checkpoint, QUERY_SET) for checkpoint in CHECKPOINTS}


def test_a_checkpoint_and_a_query_set_alone_are_brought_up_to_date_and_the_rest_later(
    lorif: Lorif, config: tuple[str, Path], more: TinyProject
) -> None:
    result = lorif("materialize", "--checkpoint", CHECKPOINTS[0], "--query-set", "more", *config)
    assert result.exit_code == 0, result.output
    assert scored(more) - STORED == {(CHECKPOINTS[0], "more")}
    assert re.search(r"^query_scores +1 partition$", lorif("materialize", *config).output, re.MULTILINE)
    assert scored(more) - STORED == {(checkpoint, "more") for checkpoint in CHECKPOINTS}


def test_an_asset_is_brought_up_to_date_with_what_it_is_made_from_and_nothing_else(
    lorif: Lorif, config: tuple[str, Path], more: TinyProject
) -> None:
    result = lorif("materialize", "--asset", "query_scores", *config)
    assert result.exit_code == 0, result.output
    assert "attribution_report" not in result.output
    assert len(scored(more) - STORED) == 2
    assert set(more.table(REPORTS)["query_set"]) == {QUERY_SET}


def test_a_checkpoint_that_is_not_active_can_be_asked_for(
    lorif: Lorif, config: tuple[str, Path], more: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_ACTIVE__CHECKPOINTS", "newest")
    assert lorif("materialize", *config).exit_code == 0
    assert scored(more) - STORED == {(CHECKPOINTS[1], "more")}
    assert lorif("materialize", "--checkpoint", CHECKPOINTS[0], *config).exit_code == 0
    assert scored(more) - STORED == {(checkpoint, "more") for checkpoint in CHECKPOINTS}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--checkpoint", "step-9"), f"there is no checkpoint 'step-9'; found {', '.join(CHECKPOINTS)}"),
        (("--query-set", "nothing"), f"there is no query set 'nothing'; found {QUERY_SET}"),
        (("--asset", "nothing"), "there is no asset 'nothing'; there are training_examples, "),
        (("--asset", "influcoder_encoder"), "'influcoder_encoder' is not used under these settings"),
    ],
)
def test_what_is_asked_for_and_not_there_is_a_message(
    lorif: Lorif, config: tuple[str, Path], arguments: tuple[str, str], expected: str
) -> None:
    for dry in ((), ("--dry-run",)):
        result = lorif("materialize", *arguments, *dry, *config)
        assert result.exit_code == 1
        assert expected in " ".join(result.stderr.split())


def test_a_dry_run_says_what_would_be_computed_and_why_and_computes_nothing(
    lorif: Lorif, config: tuple[str, Path], more: TinyProject
) -> None:
    more.edit_shard(1, 4, "an error closes the file")
    result = lorif("materialize", "--dry-run", *config)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.output.splitlines()}
    assert lines["training_examples"] == f"1 partition: its source changed (1); {SHARDS[1]}"
    assert lines["query_examples"] == "1 partition: missing (1); more"
    assert lines["checkpoints"] == "up to date"
    assert lines["gradient_factors"] == "what follows from those above"
    assert scored(more) == STORED
    assert set(more.stale("training_examples")) == {SHARDS[1]}
    assert not (more.root / "dagster_home").exists()


def test_runs_are_listed_by_asset_checkpoint_and_partitions(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    shutil.rmtree(private_project.root / "lake" / GRADIENT_FACTORS.name)
    assert lorif("materialize", "--asset", "gradient_factors", *config).exit_code == 0
    with dg.DagsterInstance.from_config(str(private_project.root / "dagster_home")) as instance:
        runs = [run for run in instance.get_runs() if run.job_name == "materialize_gradient_factors"]
    found = {run.tags["lorif/checkpoint"]: run.tags["lorif/partitions"] for run in runs}
    assert found == dict.fromkeys(CHECKPOINTS, f"3: {SHARDS[0]} to {SHARDS[2]}")


def test_progress_is_told_in_partitions_done_of_all(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorif_assets.progress._LOG_EVERY_SECONDS", 0.0)
    shutil.rmtree(private_project.root / "lake" / GRADIENT_FACTORS.name)
    result = lorif("materialize", "--asset", "gradient_factors", *config)
    # The first says nothing of the pace: others that were computed with it may follow.
    found = re.findall(r"^gradient_factors: (\d) of 6 partitions(?: \(.+ left\))?$", result.stderr, re.MULTILINE)
    assert found == ["1", "2", "3", "4", "5", "6"], result.stderr


def test_an_interruption_says_in_a_line_that_the_work_goes_on_from_there_and_it_does(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in range(3):
        private_project.edit_shard(shard, 4, "an error closes the file")
    commit, committed = PartitionRun.commit, []

    def interrupt_after_one(run: PartitionRun, partition: str, *given: object) -> object:
        if committed:
            raise KeyboardInterrupt
        committed.append(partition)
        return commit(run, partition, *given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PartitionRun, "commit", interrupt_after_one)
        result = lorif("materialize", *config)
    assert result.exit_code == 130
    said = [line for line in result.stderr.splitlines() if "interrupted" in line]
    assert said == ["interrupted: what was finished is stored, and the same command goes on from there"]
    assert "Traceback" not in result.output
    # Nothing else is begun, and the partition that was committed is not computed again.
    assert "query_examples" not in result.output
    assert committed[0] not in private_project.stale("training_examples")
    again = lorif("materialize", *config)
    assert again.exit_code == 0, again.output
    assert "attribution_report     2 partitions" in again.output


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_one_line_and_a_second_run_finishes_the_work(private_project: TinyProject) -> None:
    for step in range(3, 8):
        shutil.copytree(
            private_project.root / "checkpoints" / CHECKPOINTS[0],
            private_project.root / f"checkpoints/step-000{step}00",
        )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "lorif_assets", "materialize", "--asset", "query_scores", "--config"]
    started = subprocess.Popen(
        [*command, private_project.root / "lorif.toml"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, a shell has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert started.stdout
    for line in started.stdout:
        if line.startswith("gradient_factors") and "to compute" in line:
            started.send_signal(signal.SIGINT)
            break
    _, stderr = started.communicate(timeout=120)
    assert started.returncode == 130, stderr
    assert "goes on from there" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
    finished = subprocess.run(
        [*command, private_project.root / "lorif.toml"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert not private_project.stale("query_scores")


def test_a_wait_for_a_place_in_the_pool_names_the_run_that_holds_it(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert pool_holders(instance, gradient_factors) == ""
        storage = instance.event_log_storage
        storage.set_concurrency_slots("gpu", 1)
        assert pool_holders(instance, gradient_factors) == ""
        storage.claim_concurrency_slot("gpu", "12345678-run", "step")
        assert pool_holders(instance, gradient_factors) == "run 12345678"
        assert pool_holders(instance, training_examples) == ""
