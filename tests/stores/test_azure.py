"""The same in Azure's store, by az:// and abfss://, in Microsoft's emulator of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from lorif_assets.config.sources import Source
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.stores import object_store as stores
from tests.conftest import TinyProject
from tests.stores.azure_store import ACCOUNT, CONTAINER, KEY, container
from tests.stores.flaky_store import flaky
from tests.stores.project_in_store import assert_same_scores, moved_to_store, upload
from tests.stores.test_object_store import report, write_and_read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ADDRESSES = {"az": f"az://{CONTAINER}", "abfss": f"abfss://{CONTAINER}@{ACCOUNT}.dfs.core.windows.net"}
COMMITS = """
import json, sys
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.lake.lake import Lake
from tests.stores.flaky_store import flaky
from tests.stores.project_in_store import assert_same_scores, moved_to_store, upload
from tests.stores.test_object_store import report, write_and_read
lake = Lake(sys.argv[3], json.loads(sys.argv[1]))
for number in range(5):
    lake.replace(REPORTS, {"checkpoint": sys.argv[2], "query_set": f"q{number}"}, report(sys.argv[2], number))
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with container(tmp_path_factory.mktemp("azurite")) as found:
        yield found


@pytest.fixture(params=list(ADDRESSES))
def address(
    request: pytest.FixtureRequest, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The container's address; what opens it is in the environment, and the cache is empty."""
    for name, value in options.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "_TRUSTED_SECONDS", 0.0)
    return f"{ADDRESSES[request.param]}/{request.param}"


def source(path: str) -> Source:
    return Source(name="docs", path=path, columns={"id": "id", "text": "text"})


def test_files_in_azure_make_the_shards_that_local_ones_make(
    address: str, tiny_project: TinyProject, tmp_path: Path
) -> None:
    upload(tiny_project.root / "data", f"{address}/corpus")
    here = list_shards(source("data"), tiny_project.root)
    there = list_shards(source(f"{address}/corpus"), tmp_path)
    assert [piece.shard for piece in there] == [piece.shard for piece in here]
    for one, other in zip(here, there, strict=True):
        rows = read_shard(source(f"{address}/corpus"), other, tmp_path).rows
        assert read_shard(source("data"), one, tiny_project.root).rows == rows


def test_tables_tensors_and_pages_are_read_as_they_were_written(address: str) -> None:
    lake = Lake(f"{address}/lake")
    for number in range(3):
        lake.replace(REPORTS, {"checkpoint": "a", "query_set": f"q{number}"}, report("a", number))
    lake.replace(REPORTS, {"checkpoint": "a", "query_set": "q0"}, report("a", 0))
    assert lake.read(REPORTS, query_set="q1").height == 1
    assert lake.read(REPORTS).height == 3
    path = lake.write_tensors("states", {"x": torch.arange(5)})
    assert lake.read_tensors(path)["x"].tolist() == [0, 1, 2, 3, 4]
    lake.write_file("reports/a.html", b"page")
    assert lake.read_file("reports/a.html") == b"page"
    lake.remove(REPORTS, query_set=["q1"])
    assert sorted(lake.read(REPORTS)["query_set"]) == ["q0", "q2"]


def test_commits_of_several_processes_are_conditional_and_none_is_lost(address: str, options: dict[str, str]) -> None:
    root = f"{address}/shared"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    writers = [
        subprocess.Popen([sys.executable, "-c", COMMITS, json.dumps(options), name, root], env=environment)
        for name in ("a", "b", "c")
    ]
    assert [writer.wait(600) for writer in writers] == [0, 0, 0]
    stored = Lake(root, options).read(REPORTS)
    assert stored.group_by("checkpoint").len().sort("checkpoint").rows() == [("a", 5), ("b", 5), ("c", 5)]
    assert stored.filter(pl.struct("checkpoint", "query_set").is_duplicated()).is_empty()


def test_a_project_whose_checkpoints_data_queries_and_lake_are_in_azure(
    address: str, tiny_project: TinyProject, tmp_path: Path
) -> None:
    with moved_to_store(tiny_project, address, tmp_path) as project:
        project.update()
        assert not project.update()
        assert_same_scores(project, tiny_project)
        assert project.table(REPORTS)["uri"].str.starts_with(f"{address}/out/").all()


def test_a_store_that_refuses_every_third_request_loses_nothing(address: str, options: dict[str, str]) -> None:
    with flaky(options["AZURE_STORAGE_ENDPOINT"].removesuffix(f"/{ACCOUNT}")) as proxy:
        refusing = {**options, "AZURE_STORAGE_ENDPOINT": f"{proxy}/{ACCOUNT}"}
        write_and_read(Lake(f"{address}/flaky", refusing), Lake(f"{address}/flaky", options))


def test_a_refusal_is_said_without_the_key(address: str, options: dict[str, str], tmp_path: Path) -> None:
    wrong = {**options, "AZURE_STORAGE_ACCOUNT_KEY": KEY[:-4] + "AA=="}
    secret = wrong["AZURE_STORAGE_ACCOUNT_KEY"]
    with pytest.raises(LorifError) as listed:
        list_shards(source(f"{address}/corpus").model_copy(update={"storage_options": wrong}), tmp_path)
    with pytest.raises(LorifError) as opened:
        Lake(f"{address}/lake", wrong).read(REPORTS)
    for raised in (listed, opened):
        said = str(raised.value) + repr(raised.value.__cause__)
        assert secret not in said
        assert KEY not in said
