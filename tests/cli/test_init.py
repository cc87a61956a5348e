"""`lorif init`: a short settings file for what lies in a folder, and a folder that Dagster can be started in."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from dotenv import dotenv_values

from lorif_assets.config.settings import CONFIG_NAME, load_settings
from tests.cli.conftest import Lorif
from tests.conftest import TinyProject, free_port


def test_init_in_an_empty_folder_writes_a_short_file_that_loads_and_says_what_to_name(lorif: Lorif) -> None:
    result = lorif("init")
    assert result.exit_code == 0, result.output
    assert "name your sources, checkpoints and queries in it" in result.output
    settings = load_settings(Path("lorif.toml"))
    assert [source.name for source in settings.sources] == ["docs"]
    assert settings.checkpoints.path == "checkpoints"
    assert settings.queries.columns.id == "id", "as in the line that queries may begin with"
    assert 20 <= len(Path("lorif.toml").read_text().splitlines()) <= 32


def test_init_points_at_what_it_finds_and_the_file_is_sound_as_it_is(
    lorif: Lorif, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two rows of the project's data are bad on purpose.
    monkeypatch.setenv("LORIF_DATA__MAX_REJECTED_SHARE", "0.1")
    (private_project.root / CONFIG_NAME).unlink()
    result = lorif("init", private_project.root)
    assert result.exit_code == 0, result.output
    assert "look it over, then run `lorif doctor`" in result.output
    settings = load_settings(private_project.root / CONFIG_NAME)
    (source,) = settings.sources
    assert (source.name, source.path, source.columns.id) == ("data", "data", "id")
    assert (settings.checkpoints.path, settings.queries.path) == ("checkpoints", "queries")
    doctor = lorif("doctor", "--config", private_project.root / CONFIG_NAME)
    assert doctor.exit_code == 0, doctor.output
    assert "38 rows in 3 shards" in doctor.output


def test_init_with_all_explains_every_field(lorif: Lorif) -> None:
    assert lorif("init", "--all").exit_code == 0
    text = Path("lorif.toml").read_text()
    assert "# projection_factor = " in text
    assert "name your sources and checkpoints in it" in lorif("init", "--all", "more.toml").output
    assert load_settings(Path("lorif.toml")).sources[0].name == "docs"


def test_init_makes_a_dagster_project_and_leaves_what_is_there(lorif: Lorif) -> None:
    Path(".gitignore").write_text("# mine")
    said = lorif("init").output
    assert "left .gitignore as it is" in said
    assert Path(".gitignore").read_text() == "# mine"
    instance = Path("dagster_home/dagster.yaml").read_text()
    for section in ("telemetry:", "pools:", "retention:"):
        assert section in instance
    assert dotenv_values(".env") == {"DAGSTER_HOME": str(Path("dagster_home").absolute())}
    assert "lorif_assets.definitions" in Path("workspace.yaml").read_text()


def test_init_beside_another_settings_file_tells_dagster_which_one(lorif: Lorif) -> None:
    folder = Path("it's \\ odd")
    folder.mkdir()
    assert lorif("init", folder / "mine.toml").exit_code == 0
    found = dotenv_values(folder / ".env")
    assert found["LORIF_CONFIG"] == str((folder / "mine.toml").absolute())
    assert found["DAGSTER_HOME"] == str((folder / "dagster_home").absolute())


def test_init_makes_no_second_home_where_there_is_one(lorif: Lorif, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(Path("elsewhere").absolute()))
    assert lorif("init").exit_code == 0
    assert not Path("dagster_home").exists()
    assert not Path(".env").exists()


def test_init_in_a_folder_that_is_not_there_is_a_message(lorif: Lorif) -> None:
    result = lorif("init", "gone/lorif.toml")
    assert result.exit_code == 1
    assert "gone does not exist; make the folder first" in result.stderr


_JOBS = (
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { pipelines { name runs(limit: 1) { status } } } } } }"
)


@pytest.mark.slow
def test_dagster_dev_works_in_the_folder_and_shows_what_commands_did_there(
    lorif: Lorif, private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_DATA__MAX_REJECTED_SHARE", "0.1")
    root = private_project.root
    (root / CONFIG_NAME).rename(root / "before.toml")
    assert lorif("init", root).exit_code == 0
    (root / "before.toml").rename(root / CONFIG_NAME)
    private_project.edit_shard(0, 0, "an error closes the file")
    assert lorif("materialize", "--asset", "training_examples", "--config", root / CONFIG_NAME).exit_code == 0
    jobs = _jobs_in_the_ui(root)
    assert jobs["materialize_training_examples"] == [{"status": "SUCCESS"}]
    assert jobs["materialize_query_scores"] == []


def _jobs_in_the_ui(root: Path) -> dict[str, object]:
    """Every job and its newest run, as Dagster's UI gets them from `dagster dev` in a folder."""
    port = free_port()
    program = Path(sys.executable).with_name("dagster")
    environment = {name: value for name, value in os.environ.items() if name not in {"DAGSTER_HOME", "LORIF_CONFIG"}}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    log = root / "dev.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [program, "dev", "--port", str(port)], cwd=root, env=environment, stdout=output, stderr=output
        )
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/graphql",
            json.dumps({"query": _JOBS}).encode(),
            {"Content-Type": "application/json"},
        )
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            time.sleep(1)
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    found = json.loads(answer.read())["data"]["repositoriesOrError"].get("nodes")
            except OSError:
                continue
            if found:
                return {job["name"]: job["runs"] for job in found[0]["pipelines"]}
    finally:
        server.terminate()
        server.wait(60)
    pytest.fail(log.read_text())
