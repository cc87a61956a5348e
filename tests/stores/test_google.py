"""The same by gs://, in a stand-in for Google's store: one that speaks S3, behind a proxy that takes Google's requests.

Google's own store and its sign-in are not part of it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import LorifError, StoreError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.stores import object_store as stores
from lorif_assets.stores.object_store import ObjectStore
from tests.conftest import TinyProject
from tests.stores.flaky_store import flaky
from tests.stores.project_in_store import assert_same_scores, moved_to_store, upload
from tests.stores.test_object_store import source, write_and_read

pytestmark = pytest.mark.slow

NAME = "GOOGLE_SERVICE_ACCOUNT_KEY"


def key(address: str) -> str:
    """What an account's file says that goes to another address than Google's, and signs nothing."""
    nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
    return json.dumps({**nobody, "gcs_base_url": address, "disable_oauth": True})


@pytest.fixture
def address(object_store: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket's address; what opens it is in the environment, and the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "_TRUSTED_SECONDS", 0.0)
    with flaky(object_store.storage_options["AWS_ENDPOINT_URL"], "google", "sound") as proxy:
        monkeypatch.setenv(NAME, key(proxy))
        yield "gs://lake"


def test_files_make_the_shards_that_local_ones_make(address: str, tiny_project: TinyProject, tmp_path: Path) -> None:
    upload(tiny_project.root / "data", f"{address}/corpus")
    here = list_shards(source("data"), tiny_project.root)
    there = list_shards(source(f"{address}/corpus"), tmp_path)
    assert [piece.shard for piece in there] == [piece.shard for piece in here]
    for one, other in zip(here, there, strict=True):
        rows = read_shard(source(f"{address}/corpus"), other, tmp_path).rows
        assert read_shard(source("data"), one, tiny_project.root).rows == rows


def test_a_store_that_refuses_every_third_request_loses_nothing(object_store: Lake) -> None:
    with flaky(object_store.storage_options["AWS_ENDPOINT_URL"], "google") as proxy:
        refusing = Lake("gs://lake/lake", {NAME: key(proxy)})
        write_and_read(refusing, Lake("s3://lake/lake", object_store.storage_options))


def test_a_project_whose_checkpoints_data_queries_and_lake_are_in_a_store(
    address: str, tiny_project: TinyProject, tmp_path: Path
) -> None:
    with moved_to_store(tiny_project, address, tmp_path) as project:
        project.update()
        assert not project.update()
        assert_same_scores(project, tiny_project)
        assert project.table(REPORTS)["uri"].str.starts_with(f"{address}/out/").all()


@pytest.mark.parametrize(
    "wrong",
    [
        "TOP-SECRET-KEY",
        json.dumps({"client_email": "a@b", "private_key": "TOP-SECRET-KEY", "private_key_id": "1"}),
    ],
    ids=["no account", "no key"],
)
def test_a_wrong_key_is_said_without_it(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({NAME: wrong}, {}):
        with pytest.raises(LorifError) as listed:
            ObjectStore.at("gs://lake/corpus", options).files()
        with pytest.raises(
            StoreError, match=r"the store of the lake gs://lake/out refuses, or cannot be reached; check `lake.root`"
        ) as opened:
            Lake("gs://lake/out", options).read(QUERY_SCORES)
        for raised in (listed, opened):
            assert "TOP-SECRET" not in str(raised.value) + repr(raised.value.__cause__)
        monkeypatch.setenv(NAME, wrong)
