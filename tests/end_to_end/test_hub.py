"""A project whose data and checkpoints are on the hub: what doctor says, what a commit makes out of date, what sensors do."""

import io
import re

import dagster as dg
import pytest
from rich.console import Console

from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.cli.doctor import diagnose
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject
from tests.hub_stand_in import HubStandIn


@pytest.fixture
def moved(private_project: TinyProject, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The project after its data and checkpoints were pushed to the hub, which `lorif.toml` now names."""
    root = private_project.root
    hub.dataset("org/rows").commit_folder(root / "data")
    hub.model("org/run").commit_folder(root / "checkpoints")
    file = root / "lorif.toml"
    text = file.read_text().replace('path = "data"', 'path = "hf://datasets/org/rows"')
    file.write_text(text + '\n[checkpoints]\npath = "org/run"\n')
    monkeypatch.setenv("LORIF_CONFIG", str(file))
    return TinyProject.open(root, private_project.instance)


def diagnosis() -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=250)
    sound = diagnose(console)
    assert isinstance(console.file, io.StringIO)
    return sound, " ".join(console.file.getvalue().split())


def look(project: TinyProject) -> dg.SensorResult | dg.SkipReason:
    """What the sensor `discovery` answers."""
    (sensor, *_), _ = automation_definitions(project.settings)
    resources = dagster_resources(project.opened)
    with dg.build_sensor_context(instance=project.instance, resources=resources) as context:
        answer = sensor(context)
    assert isinstance(answer, dg.SensorResult | dg.SkipReason)
    return answer


def test_results_of_the_same_bytes_stay_and_a_commit_costs_what_it_changed(moved: TinyProject, hub: HubStandIn) -> None:
    """Under the names that they had as folders, everything is read again, and nothing is computed again."""
    assert moved.update() == {"training_examples": {*SHARDS}, "checkpoints": {*CHECKPOINTS}}
    source = moved.figures("training_examples", SHARDS[0])["source"]
    assert source == f"hf://datasets/org/rows@{hub.dataset('org/rows').refs['main']}/00000.jsonl"
    assert moved.update() == {}

    files = dict(hub.dataset("org/rows").commits[hub.dataset("org/rows").refs["main"]])
    hub.dataset("org/rows").commit({**files, "00000.jsonl": files["00000.jsonl"].replace(b"opens", b"shuts")})
    updated = moved.update()
    assert updated["training_examples"] == {*SHARDS}
    assert updated["gradient_factors"] == {f"{checkpoint}|{SHARDS[0]}" for checkpoint in CHECKPOINTS}
    assert "checkpoints" not in updated


def test_doctor_finds_what_is_on_the_hub_and_says_that_it_may_move(moved: TinyProject, hub: HubStandIn) -> None:
    sound, said = diagnosis()
    assert sound
    assert (
        "38 rows in 3 shards, hf://datasets/org/rows; follows 'main', which may move; hf://datasets/org/rows@" in said
    )
    assert "2: step-000100 to step-000200" in said
    assert re.search(
        r"note checkpoints follows 'main', which may move; hf://org/run@[0-9a-f]{40} would stay as it is now", said
    )
    assert not [path for path in hub.downloads() if path.endswith("safetensors")], "doctor needs no weights"


def test_while_the_hub_is_out_of_reach_what_was_fetched_goes_on_and_doctor_says_so(
    moved: TinyProject, hub: HubStandIn
) -> None:
    moved.update()
    hub.close()
    assert moved.update() == {}
    sound, said = diagnosis()
    assert sound
    assert f"{hub.url} cannot be reached" in said
    assert "so hf://datasets/org/rows is taken at the commit that was seen last" in said


def test_what_the_hub_does_not_give_is_a_fault_and_a_sensor_waits(moved: TinyProject, hub: HubStandIn) -> None:
    hub.dataset("org/rows").is_gated = True
    hub.models.clear()
    sound, said = diagnosis()
    assert not sound
    assert "hf://datasets/org/rows is gated, and cannot be read without a token" in said
    assert "has no model 'org/run' that can be read without a token" in said
    skipped = look(moved)
    assert isinstance(skipped, dg.SkipReason)
    assert "is gated" in str(skipped.skip_message)
    assert set(moved.table(TRAINING_EXAMPLES)["shard"]) == {*SHARDS}, "what is stored stays"


def test_a_sensor_does_not_wait_for_a_long_download(
    moved: TinyProject, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorif_assets.automation.sensors._DOWNLOAD_SECONDS", 0.2)
    hub.sends_files.clear()
    skipped = look(moved)
    hub.sends_files.set()
    assert "3 files of hf://datasets/org/rows are being downloaded" in str(getattr(skipped, "skip_message", ""))
    moved.register_partitions()
    assert set(moved.instance.get_dynamic_partitions("shards")) == {*SHARDS}
