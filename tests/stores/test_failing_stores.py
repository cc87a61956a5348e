"""A lake in an object store that refuses, or does not answer for a time: a sentence, no damage, and no secret."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from lorif_assets.attribution.stored.vacuum import superseded_files
from lorif_assets.errors import DamagedLakeError, LorifError, StoreError
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS
from lorif_assets.lake.damage import notes
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.seals import put_back_log_file
from tests.lake.test_damage import store_factors
from tests.lake.test_lake import LAYER, streamed


@pytest.fixture(scope="module")
def refused() -> Iterator[Lake]:
    """A lake in a store whose credentials have expired."""
    command = [sys.executable, str(Path(__file__).with_name("refusing_store.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as store:
        assert store.stdout
        address = f"http://127.0.0.1:{store.stdout.readline().strip()}"
        keys = {"AWS_ACCESS_KEY_ID": "OUR-KEY", "AWS_SECRET_ACCESS_KEY": "TOP-SECRET", "AWS_REGION": "us-east-1"}
        yield Lake("s3://lake/out", {**keys, "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true"})
        store.terminate()


@pytest.mark.parametrize(
    "use",
    [
        lambda lake: lake.without_damaged(),
        lambda lake: lake.read(CHECKPOINTS),
        lambda lake: lake.read_file("reports/a/b.html"),
        lambda lake: lake.stored.has("a"),
        lambda lake: lake.write_file("reports/a/b.html", b"page"),
        lambda lake: lake.stored.delete("a"),
        lambda lake: superseded_files(lake, 0),
    ],
)
def test_whatever_a_store_refuses_is_one_sentence_with_its_answer(refused: Lake, use: Callable[[Lake], object]) -> None:
    with pytest.raises(LorifError) as raised:
        use(refused)
    said = str(raised.value)
    assert said.startswith(
        "the store of the lake s3://lake/out refuses, or cannot be reached; check `lake.root`, `lake.storage_options` and "
        "the environment: 403 Forbidden"
    )
    assert "\n" not in said
    assert "OUR-KEY" not in said
    assert "SECRET" not in said


def test_the_code_and_the_words_of_the_store_are_told_and_not_the_request(refused: Lake) -> None:
    with pytest.raises(StoreError, match=r"403 Forbidden: ExpiredToken: The provided token has expired\.$"):
        refused.without_damaged()


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake of one shard of factors, taken for one in a store."""
    lake = Lake(str(tmp_path / "lake"))
    store_factors(lake)
    # A store has no folders that would have to be made first.
    Path(lake.root, "damaged").mkdir()
    there = pafs.SubTreeFileSystem(lake.root, pafs.LocalFileSystem())
    monkeypatch.setattr("lorif_assets.lake.stored_files.StoredFiles.is_local", False)
    monkeypatch.setattr("lorif_assets.lake.stored_files.StoredFiles.system", there)
    monkeypatch.setattr(Lake, "is_local", False)
    return lake


def test_factors_that_could_not_be_read_for_a_time_are_not_damaged(
    remote: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("Generic S3 error: error sending request")

    monkeypatch.setattr("lorif_assets.lake.lake.pq.ParquetFile", fail)
    with pytest.raises(StoreError, match="could not be read for a time, and is sound now: start this again"):
        streamed(remote, "one", LAYER, 100)
    assert notes(remote.stored) == []


def test_a_lost_log_entry_stays_lost_where_a_store_takes_no_writes(
    remote: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = f"{GRADIENT_FACTORS.name}/_delta_log/{0:020}.json"
    Path(remote.root, entry).unlink()

    def refuse(*_: object) -> None:
        raise OSError("403 Forbidden")

    with monkeypatch.context() as patch:
        patch.setattr("lorif_assets.lake.stored_files.StoredFiles._put", refuse)
        assert not put_back_log_file(remote.stored, entry)
    assert put_back_log_file(remote.stored, entry)


def test_factors_that_are_broken_in_a_store_are_damaged_all_the_same(remote: Lake) -> None:
    (file,) = Path(remote.root).glob("gradient_factors/**/*.parquet")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DamagedLakeError, match="run `lorif materialize`"):
        streamed(remote, "one", LAYER, 100)
    assert len(notes(remote.stored)) == 1
