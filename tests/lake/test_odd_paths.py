"""A lake, a project and a Delta source work in folders of any name that Delta tables can have; others are refused by name."""

from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from deltalake import write_deltalake

from lorif_assets.config.settings import load_settings
from lorif_assets.config.sources import Columns, Source
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import SettingsError, SourceError
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.lake import Lake
from lorif_assets.project import Project
from tests.archives import unpack
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject
from tests.test_stored_lakes import ARCHIVE, AS_IT_WAS

NAMES = [
    "eq=ual",
    "a space",
    "ha#sh",
    "ümlaut 漢字",
    "{braces}",
    "semi;colon",
    "quo'te",
    'dou"ble',
    "amp&er+plus",
    "$dollar~",
    "col:on",
]
REFUSED = ["per%cent", "per%20cent", "sta*r", "[brackets]", "back\\slash", "car^et", "pi|pe", "ta\tb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_partition_is_written_and_read_back_by_its_values(tmp_path: Path, name: str) -> None:
    lake = Lake(str(tmp_path / name))
    columns = {field.name: pl.lit(None).alias(field.name) for field in QUERY_SCORES.columns}
    for checkpoint in ("step 1", "step%2"):
        known = {"checkpoint": checkpoint, "query_set": "a set", "query_id": "q", "example_id": f"of {checkpoint}"}
        values = columns | {column: pl.lit(value).alias(column) for column, value in known.items()}
        rows = pl.DataFrame({"at": [0]}).select(values.values()).to_arrow().cast(QUERY_SCORES.columns)
        lake.replace(QUERY_SCORES, {"checkpoint": checkpoint, "query_set": "a set"}, rows)
    found = lake.read(QUERY_SCORES, ["example_id"], checkpoint="step%2", query_set=["a set", "another"])
    assert found["example_id"].to_list() == ["of step%2"]
    assert sorted(lake.read(QUERY_SCORES)["checkpoint"]) == ["step 1", "step%2"]


def test_a_project_is_attributed_from_nothing(tmp_path: Path) -> None:
    unpack(ARCHIVE, tmp_path / "my #1 präject")
    root = tmp_path / "my #1 präject" / "stored_project"
    bad_rows = "\n[data]\nmax_rejected_share = 0.1\n"
    settings = (root / "svd.toml").read_text().replace("[recipe]", f"[recipe]{AS_IT_WAS}")
    (root / "again.toml").write_text(settings.replace("lake-svd", "a new lake") + bad_rows)
    opened = Project.open(root / "again.toml")
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject(root, opened.settings, opened, instance)
        project.update()
        assert not project.update()
        partition = {"checkpoint": CHECKPOINTS[-1], "query_set": QUERY_SET}
        stored = Lake(str(root / "lake-svd")).read(QUERY_SCORES, **partition).sort("query_id", "side", "rank")
        scores = project.table(QUERY_SCORES, **partition).sort("query_id", "side", "rank")
        assert scores["example_id"].to_list() == stored["example_id"].to_list()


@pytest.mark.parametrize("name", NAMES)
def test_a_delta_source_is_read(tmp_path: Path, name: str) -> None:
    write_deltalake(str(tmp_path / name), pl.DataFrame({"id": ["a", "b"], "text": ["one", "two"]}).to_arrow())
    source = Source(name="docs", path=name, columns=Columns(id="id", text="text"), buckets=1)
    (piece,) = list_shards(source, tmp_path)
    assert [row["text"] for _, row in read_shard(source, piece, tmp_path).rows] == ["one", "two"]


@pytest.mark.parametrize("name", [*REFUSED, "ha#sh", "what?"])
def test_a_folder_of_an_object_store_that_delta_tables_cannot_be_in_is_refused_too(name: str) -> None:
    with pytest.raises(SettingsError, match=r"no path with the character .* set `lake\.root`"):
        Lake(f"s3://bucket/{name}")


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_delta_tables_cannot_be_in_is_refused_with_its_character(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=r"no path with the character .* set `lake\.root`"):
        Lake(str(tmp_path / name))
    (tmp_path / name / "_delta_log").mkdir(parents=True)
    source = Source(name="docs", path=str(tmp_path / name), format="delta", columns=Columns(id="id", text="text"))
    with pytest.raises(SourceError):
        list_shards(source, tmp_path)


def test_a_project_whose_tracking_file_would_have_no_address_is_refused(tmp_path: Path) -> None:
    (tmp_path / "what?").mkdir()
    file = tmp_path / "what?" / "lorif.toml"
    file.write_text("")
    with pytest.raises(SettingsError, match=r"`tracking\.uri`"):
        load_settings(file)
    file.write_text('[tracking]\nuri = "none"\n')
    assert Lake(load_settings(file).lake_root)
