"""What a kill between two commits sets apart is named: the tables, Dagster and MLflow are compared."""

import subprocess
import sys
from pathlib import Path

import pytest

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.automation.records import disagreements
from lorif_assets.automation.withdrawal import cut
from lorif_assets.freshness.leftovers import LeftoverShard
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS, QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

_REPOSITORY = Path(__file__).parents[2]
# The process dies as an asset records a partition, or as it stores one: Dagster, MLflow and the lake hear of it one by one.
_KILLED = """
import os, signal, sys
from pathlib import Path
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.lake.lake import Lake
from tests.conftest import TinyProject, _instance

root, at, name = Path(sys.argv[1]), *sys.argv[2:]
commit, replace = PartitionRun.commit, Lake.replace

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killed_commit(run, *rest):
    if at == "commit" and run._context.asset_key.to_user_string() == name:
        die()
    yield from commit(run, *rest)

def killed_replace(lake, schema, *rest):
    if at == "replace" and schema.name == name:
        die()
    return replace(lake, schema, *rest)

PartitionRun.commit, Lake.replace = killed_commit, killed_replace
with _instance(root) as instance:
    TinyProject.open(root, instance).update()
"""


def found(project: TinyProject) -> list[str]:
    return list(disagreements(project.instance, assets_in_use(project.settings), project.opened))


@pytest.fixture
def tracked_project(recorded_project: TinyProject, mlflow_uri: str, request: pytest.FixtureRequest) -> TinyProject:
    """The project with Dagster's records, tracked from now on."""
    file = recorded_project.root / "lorif.toml"
    tracking = f'[tracking]\nuri = "{mlflow_uri}"\nexperiment = "{request.node.name}"\n'
    file.write_text(file.read_text().replace('[tracking]\nuri = "none"\n', tracking))
    return TinyProject.open(recorded_project.root, recorded_project.instance)


def kill(project: TinyProject, at: str, name: str) -> None:
    command = [sys.executable, "-c", _KILLED, str(project.root), at, name]
    ended = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr.decode()


def test_after_a_full_run_they_agree(recorded_project: TinyProject) -> None:
    assert found(recorded_project) == []


def test_with_the_other_curvature_they_agree_too(ekfac_project: TinyProject) -> None:
    assert found(ekfac_project) == []


def test_one_checkpoint_alone_has_no_comparison_and_that_is_no_disagreement(recorded_project: TinyProject) -> None:
    for schema in (QUERY_SCORES, QUERY_SUMMARIES):
        partition = {"checkpoint": CHECKPOINTS[0], "query_set": QUERY_SET}
        recorded_project.lake.replace(schema, partition, schema.columns.empty_table())
    recorded_project.run("checkpoint_comparison", QUERY_SET)
    assert recorded_project.table(CHECKPOINT_COMPARISONS).is_empty()
    assert not [sentence for sentence in found(recorded_project) if sentence.startswith("checkpoint_comparison")]


def test_rows_that_were_taken_out_of_a_shard_by_a_decision_are_no_disagreement(recorded_project: TinyProject) -> None:
    cut(recorded_project.lake, recorded_project.instance, LeftoverShard(SHARDS[1], 12, (0, 1)))
    assert found(recorded_project) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "name", "sentences"),
    [
        (
            "commit",
            "training_examples",
            [f"training_examples: Dagster records another version than is stored of {SHARDS[1]};"],
        ),
        (
            "commit",
            "gradient_factors",
            [
                "gradient_factors: Dagster records another version than is stored of ",
                "gradient_factors: MLflow still shows as running ",
            ],
        ),
        ("replace", "reports", ["attribution_report: MLflow has as finished "]),
    ],
)
def test_a_kill_between_two_commits_is_named(
    tracked_project: TinyProject, at: str, name: str, sentences: list[str]
) -> None:
    tracked_project.edit_shard(1, 4, "an error closes the file")
    kill(tracked_project, at, name)
    said = found(tracked_project)
    for sentence in sentences:
        assert any(one.startswith(sentence) for one in said), said
    assert len(said) == len(sentences), said
    # The next update brings the tables, Dagster and MLflow together again.
    tracked_project.update()
    assert found(tracked_project) == []


def test_what_was_taken_out_of_the_lake_is_named(recorded_project: TinyProject) -> None:
    empty = TRAINING_EXAMPLES.columns.empty_table()
    recorded_project.lake.replace(TRAINING_EXAMPLES, {"shard": SHARDS[1]}, empty)
    (sentence,) = found(recorded_project)
    assert sentence.startswith(f"training_examples: the lake holds nothing of {SHARDS[1]}, which Dagster records")


def test_a_dagster_that_knows_of_nothing_is_said_to(private_project: TinyProject) -> None:
    said = found(private_project)
    assert said[0].startswith("training_examples: Dagster has no record of 3 partition(s)")
    assert all("Dagster has no record" in sentence for sentence in said)


def test_an_mlflow_that_cannot_be_asked_is_said_to(private_project: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1_000)
    damaged = private_project.with_settings(tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    *of_dagster, last = found(damaged)
    assert all("Dagster has no record" in sentence for sentence in of_dagster)
    assert last.startswith("MLflow cannot be asked ((sqlite3.DatabaseError) file is not a database)")
