"""Training data, queries, checkpoints and the lake in an object store, whose refusals and delays do no harm."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import torch

from lorif_assets.config.settings import load_settings
from lorif_assets.config.sources import Source
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import CheckpointError, LorifError, SourceError, StoreError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, REPORTS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.places import store_checkpoints
from lorif_assets.models.places.listed_checkpoints import ListedCheckpoint
from lorif_assets.models.places.store_checkpoints import ObjectStoreCheckpoints
from lorif_assets.project import Project
from lorif_assets.stores import object_store as stores
from lorif_assets.stores.object_store import ObjectStore
from tests.conftest import CHECKPOINTS, TinyProject, private_copy
from tests.stores.flaky_store import flaky
from tests.token_stores import datatrove_files, indexed_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bucket(object_store: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store, whose address and credentials are in the environment, and an empty cache."""
    import boto3

    for name, value in object_store.storage_options.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "_TRUSTED_SECONDS", 0.0)
    return boto3.client("s3", endpoint_url=object_store.storage_options["AWS_ENDPOINT_URL"], region_name="us-east-1")


def upload(bucket: Any, folder: Path, prefix: str) -> None:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        bucket.put_object(Bucket="lake", Key=f"{prefix}/{file.relative_to(folder).as_posix()}", Body=file.read_bytes())


def source(path: str) -> Source:
    return Source(name="docs", path=path, columns={"id": "id", "text": "text"})


@pytest.mark.slow
def test_files_in_a_store_make_the_shards_that_local_ones_make(
    bucket: Any, tiny_project: TinyProject, tmp_path: Path
) -> None:
    upload(bucket, tiny_project.root / "data", "corpus")
    bucket.put_object(Bucket="lake", Key="corpus/model.bin", Body=b"not data")
    here = list_shards(source("data"), tiny_project.root)
    for path in ("s3://lake/corpus", "s3://lake/corpus/*.jsonl"):
        there = list_shards(source(path), tmp_path)
        assert [piece.shard for piece in there] == [piece.shard for piece in here]
        assert {piece.uri for piece in there} == {f"s3://lake/corpus/{k:05d}.jsonl" for k in range(3)}
        for one, other in zip(here, there, strict=True):
            assert (
                read_shard(source("data"), one, tiny_project.root).rows
                == read_shard(source(path), other, tmp_path).rows
            )
    assert not [*(tmp_path / "cache").rglob("model.bin")], "what is no data is not copied"
    (alone,) = list_shards(source("s3://lake/corpus/00001.jsonl"), tmp_path)
    assert (alone.shard, alone.rows) == ("docs-00000", 12)


@pytest.mark.slow
def test_in_a_store_what_was_made_of_rows_is_not_copied_where_rows_are(bucket: Any, tmp_path: Path) -> None:
    made = {
        **indexed_files("mixed/web", [[[5, 6, 7]]]),
        "mixed/train/shard.00000.mds": b"large",
        "mixed/_b.json": b"{}",
    }
    for name, content in {**made, "mixed/rows.json": b'[{"text": "words"}]'}.items():
        bucket.put_object(Bucket="lake", Key=name, Body=content)
    of = Source(name="docs", path="s3://lake/mixed")
    (piece,) = list_shards(of, tmp_path)
    assert piece.uri == "s3://lake/mixed/rows.json"
    copies = {file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    assert "rows.json" in copies
    assert not {"web.idx", "shard.00000.mds"} & copies


NAMES = ["a space", "ümlaut 漢字", "plus+plus", "eq=ual", "{braces}"]


@pytest.mark.parametrize("path", ["c", "c/*.ds", "c/a.ds"])
def test_in_a_store_marks_of_loss_beside_tokens_are_followed(bucket: Any, tmp_path: Path, path: str) -> None:
    for name, content in datatrove_files("c/a.ds", [[5, 6, 7]], marks=[[0, 1, 1]]).items():
        bucket.put_object(Bucket="lake", Key=name, Body=content)
    of = Source(name="docs", path=f"s3://lake/{path}")
    (piece,) = list_shards(of, tmp_path)
    assert [values["labels"] for _, values in read_shard(of, piece, tmp_path).rows] == [[-100, 6, 7]]


def test_in_a_store_tokens_without_their_index_are_named(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket="lake", Key="d/a.ds", Body=bytes(12))
    with pytest.raises(
        SourceError, match=r"s3://lake/d/a\.ds cannot be read without a\.ds\.index, which is not beside it"
    ):
        list_shards(Source(name="docs", path="s3://lake/d"), tmp_path)


@pytest.mark.slow
def test_in_a_store_the_tokens_of_an_index_are_copied_with_it(bucket: Any, tmp_path: Path) -> None:
    for name, content in indexed_files("corpus/web", [[[5, 6, 7]], [[8, 9]]]).items():
        bucket.put_object(Bucket="lake", Key=name, Body=content)
    bucket.put_object(Bucket="lake", Key="corpus/model.bin", Body=b"not data")
    for path in ("s3://lake/corpus", "s3://lake/corpus/*.idx", "s3://lake/corpus/web.idx"):
        of = Source(name="docs", path=path)
        (piece,) = list_shards(of, tmp_path)
        assert [values["input_ids"] for _, values in read_shard(of, piece, tmp_path).rows] == [[5, 6, 7], [8, 9]]
    assert not [*(tmp_path / "cache").rglob("model.bin")]


@pytest.mark.slow
def test_files_in_a_store_are_read_whatever_their_folder_is_called(bucket: Any, tmp_path: Path) -> None:
    for name in [*NAMES, "ha#sh", "per%cent", "per%20cent"]:
        bucket.put_object(Bucket="lake", Key=f"{name}/{name}.jsonl", Body=b'{"id": "a", "text": "one"}')
        for path in (name, f"{name}/", f"{name}/*.jsonl", f"{name}/{name}.jsonl"):
            there = source(f"s3://lake/{path}")
            (piece,) = list_shards(there, tmp_path)
            assert [row["text"] for _, row in read_shard(there, piece, tmp_path).rows] == ["one"], path


@pytest.mark.slow
def test_a_lake_in_a_store_is_written_and_read_back_whatever_its_folder_is_called(
    object_store: Lake, bucket: Any
) -> None:
    for name in NAMES:
        lake = Lake(f"s3://lake/{name}", object_store.storage_options)
        lake.replace(REPORTS, {"checkpoint": "a", "query_set": "q0"}, report("a", 0))
        path = lake.write_tensors("states", {"x": torch.arange(5)})
        again = Lake(f"s3://lake/{name}/", object_store.storage_options)
        assert again.read(REPORTS, checkpoint="a")["query_set"].to_list() == ["q0"], name
        assert again.read_tensors(path)["x"].tolist() == [0, 1, 2, 3, 4], name
    keys = [one["Key"] for one in bucket.list_objects_v2(Bucket="lake")["Contents"]]
    assert {key.partition("/")[0] for key in keys} == {*NAMES}


@pytest.mark.slow
def test_what_is_written_or_removed_in_a_store_is_seen(bucket: Any, tmp_path: Path) -> None:
    def put(name: str, *texts: str) -> None:
        lines = "\n".join(json.dumps({"id": text, "text": text}) for text in texts)
        bucket.put_object(Bucket="lake", Key=f"corpus/{name}.jsonl", Body=lines.encode())

    put("a", "one", "two")
    put("b", "three")
    first = {piece.shard: piece for piece in list_shards(source("s3://lake/corpus"), tmp_path)}
    put("a", "one", "two", "more")
    bucket.delete_object(Bucket="lake", Key="corpus/b.jsonl")
    (piece,) = list_shards(source("s3://lake/corpus"), tmp_path)
    assert piece.version != first[piece.shard].version
    assert len(read_shard(source("s3://lake/corpus"), piece, tmp_path).rows) == 3
    with pytest.raises(SourceError, match="has changed since its shards were listed"):
        read_shard(source("s3://lake/corpus"), first[piece.shard], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("s3://lake/nothing.jsonl", "there is no file s3://lake/nothing.jsonl"),
        ("s3://no-such-bucket/corpus", "s3://no-such-bucket/corpus cannot be listed: .*404"),
        ("s3://lake/table", 'is a Delta table. Make it a source of its own with format = "delta"'),
        ("ftp://lake/corpus", "nor in an object store that is read"),
    ],
)
def test_what_cannot_be_read_from_a_store_is_said_without_its_credentials(
    bucket: Any, tmp_path: Path, path: str, reason: str
) -> None:
    bucket.put_object(Bucket="lake", Key="table/_delta_log/0.json", Body=b"{}")
    options = {"AWS_SECRET_ACCESS_KEY": "TOP-SECRET", "AWS_ACCESS_KEY_ID": "OUR-KEY"}
    with pytest.raises(SourceError, match=reason) as raised:
        list_shards(source(path).model_copy(update={"storage_options": options}), tmp_path)
    assert "SECRET" not in str(raised.value)
    assert "OUR-KEY" not in str(raised.value)


@pytest.mark.parametrize("place", ["steps", "steps/step-000200"])
def test_named_chat_templates_are_copied_with_their_checkpoint(
    bucket: Any, saved_model: Mapping[str, bytes], place: str
) -> None:
    named = "additional_chat_templates/tool_use.jinja"
    for name, content in {**saved_model, named: b"{{ tools }}"}.items():
        bucket.put_object(Bucket="lake", Key=f"steps/step-000200/{name}", Body=content)
    (found,) = ObjectStoreCheckpoints(path=f"s3://lake/{place}").find()
    found.check_description()
    assert found.name == "step-000200"
    assert found.tokenizer_files[-1] == found.path / named


def test_a_model_above_the_steps_of_its_training_is_the_last_of_them(
    bucket: Any, saved_model: dict[str, bytes]
) -> None:
    for folder in ("", "checkpoint-20/", "checkpoint-3/", "onnx/", "checkpoint-30.tmp/", "_x/"):
        for name, content in saved_model.items():
            if folder == "onnx/" and name == "model.safetensors":
                continue
            own = content + folder.encode() if name == "model.safetensors" else content
            bucket.put_object(Bucket="lake", Key=f"runs/7/{folder}{name}", Body=own)
    checkpoints = ObjectStoreCheckpoints(path="s3://lake/runs/7")
    assert [(found.name, found.step) for found in checkpoints.find()] == [
        ("checkpoint-3", 3),
        ("checkpoint-20", 20),
        ("7", 20),
    ]
    assert checkpoints.get("7").path.parent == checkpoints.get("checkpoint-3").path.parent.parent


def test_models_further_down_in_the_folders_of_steps_are_those_of_the_steps(
    bucket: Any, saved_model: dict[str, bytes]
) -> None:
    folders = {
        "global_step_20/actor/huggingface": b"20",
        "global_step_3/actor/huggingface": b"3",
        "global_step_3/critic/huggingface": b"value",
        "exports/deep": b"none",
        "last/policy": b"20",
    }
    for folder, number in folders.items():
        for name, content in saved_model.items():
            body = content + number if name == "model.safetensors" else content
            bucket.put_object(Bucket="lake", Key=f"runs/9/{folder}/{name}", Body=body)
    bucket.put_object(Bucket="lake", Key="runs/9/global_step_3/actor/model_world_size_2_rank_0.pt", Body=b"shards")
    found = ObjectStoreCheckpoints(path="s3://lake/runs/9").find()
    assert [(one.name, one.step) for one in found] == [("global_step_3", 3), ("global_step_20", 20)]
    found[0].check()
    assert found[0].path.parts[-3:] == ("global_step_3", "actor", "huggingface")
    assert (found[0].path / "model.safetensors").read_bytes().endswith(b"3")


def test_a_model_above_the_steps_and_folders_that_are_copies_of_them_are_no_further_checkpoints(
    bucket: Any, saved_model: dict[str, bytes], tmp_path: Path
) -> None:
    own = {"checkpoint-20": b"20", "checkpoint-3": b"3", "best": b"3", "other": b"3", "final": b"20"}
    for folder, number in own.items():
        for name, content in saved_model.items():
            changed = {"model.safetensors": number, "tokenizer.json": b"\n" if folder == "other" else b""}
            body = content + changed.get(name, b"")
            bucket.put_object(Bucket="lake", Key=f"runs/8/{folder}/{name}", Body=body)
    found = ObjectStoreCheckpoints(path="s3://lake/runs/8").look()
    assert [(one.name, one.step) for one in found.checkpoints] == [
        ("other", None),
        ("checkpoint-3", 3),
        ("checkpoint-20", 20),
    ]
    assert found.notes == [
        "s3://lake/runs/8/final is checkpoint-20: their files are the same",
        "s3://lake/runs/8/best is checkpoint-3: their files are the same",
    ]
    for name, content in saved_model.items():
        number = b"20" if name == "model.safetensors" else b""
        bucket.put_object(Bucket="lake", Key=f"runs/8/{name}", Body=content + number)
    found = ObjectStoreCheckpoints(path="s3://lake/runs/8").look()
    assert [one.name for one in found.checkpoints] == ["other", "checkpoint-3", "checkpoint-20"]
    assert found.same["8"] == "the model in s3://lake/runs/8 itself is checkpoint-20: their weights are the same"
    assert not [*tmp_path.rglob("*.safetensors")], "weights are compared in the store"


def test_objects_that_are_the_same_are_compared_once_on_a_machine(
    bucket: Any, saved_model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("checkpoint-3", "final"):
        for name, content in saved_model.items():
            bucket.put_object(Bucket="lake", Key=f"runs/8/{folder}/{name}", Body=content)
    place = ObjectStoreCheckpoints(path="s3://lake/runs/8")
    assert [one.name for one in place.find()] == ["checkpoint-3"]
    # As in the next process.
    store_checkpoints._same_objects.cache_clear()
    monkeypatch.delattr(ObjectStore, "opened")
    assert [one.name for one in place.find()] == ["checkpoint-3"]


def test_where_nothing_can_be_kept_objects_are_compared_again(
    bucket: Any, saved_model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("checkpoint-3", "final"):
        for name, content in saved_model.items():
            bucket.put_object(Bucket="lake", Key=f"runs/10/{folder}/{name}", Body=content)
    place = ObjectStoreCheckpoints(path="s3://lake/runs/10")
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert [one.name for one in place.find()] == ["checkpoint-3"]


def test_what_cannot_be_copied_is_said(
    bucket: Any, saved_model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {**saved_model, "trainer_state.json": b"{}"}.items():
        bucket.put_object(Bucket="lake", Key=f"runs/12/epoch_3/{name}", Body=content)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with pytest.raises(CheckpointError, match=r"s3://lake/runs/12/epoch_3 cannot be read \(trainer_state.json\)"):
        ObjectStoreCheckpoints(path="s3://lake/runs/12").find()


def test_a_trainers_state_that_was_removed_says_no_step(bucket: Any, saved_model: dict[str, bytes]) -> None:
    for name, content in {**saved_model, "trainer_state.json": b'{"global_step": 60}'}.items():
        bucket.put_object(Bucket="lake", Key=f"runs/11/epoch_3/{name}", Body=content)
    assert [one.step for one in ObjectStoreCheckpoints(path="s3://lake/runs/11").find()] == [60]
    bucket.delete_object(Bucket="lake", Key="runs/11/epoch_3/trainer_state.json")
    assert [one.step for one in ObjectStoreCheckpoints(path="s3://lake/runs/11").find()] == [3]


def test_a_trainers_state_says_the_step_at_the_first_look(bucket: Any, saved_model: dict[str, bytes]) -> None:
    for name, content in {**saved_model, "trainer_state.json": b'{"global_step": 60}'}.items():
        bucket.put_object(Bucket="lake", Key=f"runs/9/epoch_3/{name}", Body=content)
    (found,) = ObjectStoreCheckpoints(path="s3://lake/runs/9").find()
    assert found.step == 60


@pytest.mark.slow
def test_a_project_whose_checkpoints_data_queries_and_lake_are_in_a_store(
    bucket: Any, tiny_project: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "queries", "checkpoints"):
        upload(bucket, tiny_project.root / name, f"in/{name}")
    bucket.put_object(Bucket="lake", Key="in/checkpoints/step-000200/optimizer.bin", Body=b"pickle")
    with private_copy(tiny_project, tmp_path) as copied:
        for name in ("data", "queries", "checkpoints", "lake"):
            shutil.rmtree(copied.root / name)
        text = (copied.root / "lorif.toml").read_text().replace('path = "data"', 'path = "s3://lake/in/data"')
        text = text.replace("[queries]", '[queries]\npath = "s3://lake/in/queries"')
        text += '\n[checkpoints]\npath = "s3://lake/in/checkpoints"\n[lake]\nroot = "s3://lake/out"\n'
        (copied.root / "lorif.toml").write_text(text)
        project = TinyProject.open(copied.root, copied.instance)
        project.register_partitions()
        project.update()
        assert not project.update()
        assert [one.name for one in project.opened.checkpoints.find()] == list(CHECKPOINTS)
        columns = ["checkpoint", "query_id", "side", "rank"]
        there, here = (one.table(QUERY_SCORES).sort(columns) for one in (project, tiny_project))
        assert there.select(*columns, "example_id").equals(here.select(*columns, "example_id"))
        assert there["score"].to_list() == pytest.approx(here["score"].to_list(), rel=1e-4)
        assert project.table(REPORTS)["uri"].str.starts_with("s3://lake/out/").all()
        assert not [*(tmp_path / "cache").rglob("optimizer.bin")], "pickles are not copied"
        # A trainer writes weights again under the same name.
        (step,) = [one for one in project.opened.checkpoints.find() if one.name == CHECKPOINTS[1]]
        before = step.version()
        weights = (tiny_project.root / "checkpoints" / CHECKPOINTS[0] / "model.safetensors").read_bytes()
        time.sleep(1.1)
        bucket.put_object(Bucket="lake", Key=f"in/checkpoints/{CHECKPOINTS[1]}/model.safetensors", Body=weights)
        (step,) = [one for one in project.opened.checkpoints.find() if one.name == CHECKPOINTS[1]]
        assert step.version() != before
        model = project.opened.checkpoints.load_model(
            project.opened.checkpoints.get(CHECKPOINTS[1]), "float32", DeviceGroup.of("cpu")
        )
        assert model is not None
        bucket.delete_object(Bucket="lake", Key=f"in/checkpoints/{CHECKPOINTS[1]}/model.safetensors")
        (step,) = [one for one in project.opened.checkpoints.find() if one.name == CHECKPOINTS[1]]
        assert "has no *.safetensors weights" in str(step.fault())


@pytest.mark.slow
def test_a_place_without_a_model_is_said(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Bucket="lake", Key="empty/readme.txt", Body=b"nothing")
    (tmp_path / "lorif.toml").write_text('[checkpoints]\npath = "s3://lake/empty"\n')
    with pytest.raises(CheckpointError, match=r"s3://lake/empty holds no model"):
        Project.of(load_settings(tmp_path / "lorif.toml")).checkpoints.find()


@pytest.fixture
def flaky_store(object_store: Lake) -> Iterator[Lake]:
    """The same store behind a proxy that refuses every third request."""
    with flaky(object_store.storage_options["AWS_ENDPOINT_URL"]) as address:
        yield Lake(object_store.root, {**object_store.storage_options, "AWS_ENDPOINT_URL": address})


def report(name: str, number: int) -> pa.Table:
    values = {field.name: "x" for field in REPORTS.columns if pa.types.is_string(field.type)}
    row = {**values, "checkpoint": name, "query_set": f"q{number}"}
    return pa.Table.from_pylist([row], schema=REPORTS.columns)


@pytest.mark.slow
def test_a_store_that_refuses_every_third_request_loses_nothing(flaky_store: Lake, object_store: Lake) -> None:
    write_and_read(flaky_store, object_store)


def write_and_read(flaky: Lake, sound: Lake) -> None:
    """Write tables, rows that are written ahead, tensors and a page by way of one lake, and read them in another too."""
    for number in range(5):
        flaky.replace(REPORTS, {"checkpoint": "a", "query_set": f"q{number}"}, report("a", number))
    for number in range(3, 8):
        partition = {"checkpoint": "a", "query_set": f"q{number}"}
        flaky.replace(REPORTS, partition, flaky.write_ahead(REPORTS, partition, report("a", number)))
    path = flaky.write_tensors("states", {"x": torch.arange(5)})
    flaky.write_file("reports/a.html", b"page")
    for lake in (flaky, sound):
        assert sorted(lake.read(REPORTS)["query_set"]) == [f"q{number}" for number in range(8)]
        assert lake.read_tensors(path)["x"].tolist() == [0, 1, 2, 3, 4]
        assert lake.read_file("reports/a.html") == b"page"
    flaky.remove(REPORTS, query_set=["q1", "q6"])
    assert sound.read(REPORTS).height == 6


COMMITS = """
import json, sys
from lorif_assets.lake.attribution_tables import REPORTS
from lorif_assets.lake.lake import Lake
from tests.stores.test_object_store import report
lake = Lake("s3://lake/shared", json.loads(sys.argv[1]))
for number in range(8):
    lake.replace(REPORTS, {"checkpoint": sys.argv[2], "query_set": f"q{number}"}, report(sys.argv[2], number))
"""


@pytest.mark.slow
def test_commits_of_several_processes_are_conditional_and_none_is_lost(object_store: Lake) -> None:
    shared = Lake("s3://lake/shared", object_store.storage_options)
    options = json.dumps(dict(object_store.storage_options))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    writers = [
        subprocess.Popen([sys.executable, "-c", COMMITS, options, name], env=environment) for name in ("a", "b", "c")
    ]
    assert [writer.wait(240) for writer in writers] == [0, 0, 0]
    stored = shared.read(REPORTS)
    assert stored.group_by("checkpoint").len().sort("checkpoint").rows() == [("a", 8), ("b", 8), ("c", 8)]
    assert stored.filter(pl.struct("checkpoint", "query_set").is_duplicated()).is_empty()


@pytest.mark.parametrize(
    ("root", "options"),
    [
        ("az://lake/out", {"AZURE_STORAGE_ACCOUNT_NAME": "ours", "AZURE_STORAGE_ACCOUNT_KEY": "TOP-SECRET!"}),
        ("az://lake/out", {"AZURE_STORAGE_ACCOUNT_KEY": "VE9QLVNFQ1JFVA=="}),
        ("gs://lake/out", {"GOOGLE_SERVICE_ACCOUNT_KEY": "TOP-SECRET"}),
    ],
    ids=["a wrong key", "no account", "no account's file"],
)
def test_a_lake_that_cannot_be_opened_is_said_in_a_sentence_without_the_key(
    root: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError) as raised:
        Lake(root, options).read(REPORTS)
    said = str(raised.value)
    assert said.startswith(f"the store of the lake {root} refuses, or cannot be reached; check `lake.root`")
    assert said.isprintable(), "on one line, without colours"
    assert "SECRET" not in said
    assert "VE9QLVNFQ1JFVA" not in said


def test_an_address_of_no_store_is_refused() -> None:
    with pytest.raises(LorifError, match="ftp://x/y is no address of an object store"):
        _ = ObjectStore.at("ftp://x/y").folder


def test_a_folder_whose_name_says_that_it_is_the_last_comes_last(bucket: Any, saved_model: Mapping[str, bytes]) -> None:
    for folder in ("final", "checkpoint-20", "checkpoint-3"):
        for name, content in saved_model.items():
            own = content + folder.encode() if name == "model.safetensors" else content
            bucket.put_object(Bucket="lake", Key=f"runs/8/{folder}/{name}", Body=own)
    found = ObjectStoreCheckpoints(path="s3://lake/runs/8").find()
    assert all(isinstance(one, ListedCheckpoint) and one.written for one in found), "objects have times"
    assert [(one.name, one.step) for one in found] == [("checkpoint-3", 3), ("checkpoint-20", 20), ("final", 20)]


def test_folders_of_one_name_in_a_store_and_what_is_compared_with_are_told_apart(
    bucket: Any, saved_model: Mapping[str, bytes]
) -> None:
    for number, folder in enumerate(("", "9/", "a b/", "a_b/", "original/")):
        for name, content in saved_model.items():
            if not (folder == "original/" and name.startswith("tokenizer")):
                own = content + bytes([number]) if name == "model.safetensors" else content
                bucket.put_object(Bucket="lake", Key=f"runs/9/{folder}{name}", Body=own)
    found = ObjectStoreCheckpoints(path="s3://lake/runs/9").find()
    assert len({one.name for one in found}) == 4
    assert {one.path.name for one in found} == {"9", "a b", "a_b"}
