"""A whole project in miniature, built once and brought up to date, and private copies for tests that change it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.internal.conjecture import providers

from lorif_assets.assets.graph import ASSETS, GRAPH
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.registration import register
from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.process_environment import set_process_environment
from lorif_assets.project import Project
from resources import dagster_resources
from tests.accelerators import accelerated  # noqa: F401
from tests.browser import chromium  # noqa: F401
from tests.hub_stand_in import HubStandIn

set_process_environment()

# How fast a machine is decides no test, and everybody draws the same examples: what chance finds stops no other change.
# `make fuzz` draws others (`--hypothesis-profile=fuzz`).
_UNTIMED = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile("fixed", _UNTIMED, derandomize=True)
hypothesis_settings.register_profile("fuzz", _UNTIMED, max_examples=1_000, print_blob=True)
hypothesis_settings.load_profile("fixed")


def pytest_configure(config: pytest.Config) -> None:
    """Let no test draw numbers that stand in the modules which happen to be loaded, other ones in each process."""
    if config.getoption("hypothesis_profile") is None:
        providers._get_local_constants = lambda: providers._local_constants


CHECKPOINTS = ("step-000100", "step-000200")
SHARDS = ("docs-00000-00000", "docs-00001-00000", "docs-00002-00000")
QUERY_SET = "questions"
ROWS_PER_SHARD = 12
PICTURE = b"\x89PNG of nothing"

_SENTENCE = "the with statement opens a file and closes it when its block ends or fails by an error"
_SETTINGS = """
[[sources]]
name = "docs"
path = "data"
columns = { id = "id", text = "text" }

[data]
# Two rows of the last shard are bad on purpose.
max_rejected_share = 0.1

[queries]
columns = { id = "id" }

[recipe]
curvature = "svd"
factor_dtype = "bf16"
rank = 1
projection_factor = 2
r = 8
top_k = 5
max_length = 48
# References in tests take the tokenizer's own ids.
append_eos = false
include_layers = ["*.attn.c_attn", "*.mlp.c_fc"]

[active]
checkpoints = "all"

[tracking]
uri = "none"
"""

_SVD = """\
curvature = "svd"
factor_dtype = "bf16"
rank = 1
"""
_EKFAC = """\
curvature = "ekfac"
factor_dtype = "int8"
rank = 2
rank_by_layer = false
kfac_examples = 20
"""


@dataclass(frozen=True)
class TinyProject:
    """A project folder (lorif.toml, data, queries, checkpoints, lake), its settings, opened, and Dagster."""

    root: Path
    settings: Settings
    opened: Project
    instance: dg.DagsterInstance
    draws: bool = False
    """Whether pictures are drawn, which takes longer than all the rest, or `PICTURE` stands in for them."""

    @classmethod
    def open(cls, root: Path, instance: dg.DagsterInstance) -> "TinyProject":
        settings = load_settings(root / "lorif.toml")
        return cls(root, settings, Project.of(settings), instance)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if not self.draws:
                patch.setattr("lorif_assets.pages.look.png", lambda figure: PICTURE)
                patch.setattr("lorif_assets.pages.report.plots.spectra_figure", lambda layers, theme: None)
            yield

    @property
    def lake(self) -> Lake:
        return self.opened.lake

    @property
    def freshness(self) -> Freshness:
        """The project as it is now."""
        return Freshness.of(self.opened)

    def stale(self, name: str) -> StalePartitions:
        """The partitions of an asset that are missing or out of date."""
        (asset,) = (asset for asset in GRAPH if asset.name == name)
        return asset.stale(self.freshness)

    def with_settings(self, **sections: Mapping[str, Any]) -> "TinyProject":
        """The same project with some fields of some sections of its settings changed: `recipe={"r": 4}`."""
        changed = {
            name: type(section := getattr(self.settings, name)).model_validate({**section.model_dump(), **fields})
            for name, fields in sections.items()
        }
        settings = self.settings.model_copy(update=changed)
        return replace(self, settings=settings, opened=Project.of(settings))

    def register_partitions(self) -> None:
        register(self.instance, discover(self.opened))

    def update(self) -> dict[str, set[str]]:
        """Bring everything up to date; which partitions of which assets that took."""
        with self._drawing():
            updates = list(bring_up_to_date(self.instance, ASSETS, self.opened))
        return {update.asset: set(update.partitions) for update in updates if update.partitions}

    def run(self, asset: str, *keys: str, config: Mapping[str, Any] | None = None) -> dg.ExecuteInProcessResult:
        """Materialize one partition, or the range from the first to the last key, in one run; raises what it raises."""
        self.register_partitions()
        one = len(keys) == 1
        ends = {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
        with self._drawing():
            return dg.materialize(
                [one.definition for one in ASSETS],
                selection=[asset],
                instance=self.instance,
                partition_key=keys[0] if one else None,
                tags=None if one else ends,
                resources=dagster_resources(self.opened),
                run_config={
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                    **({"ops": {asset: {"config": dict(config)}}} if config else {}),
                },
            )

    def recorded(self, asset: str, partition: str) -> dg.AssetMaterialization:
        """What Dagster knows of the newest materialization of a partition."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
        (record,) = self.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization
        return record.asset_materialization

    def figures(self, asset: str, partition: str) -> dict[str, Any]:
        """The metadata of the newest materialization of a partition."""
        return {name: value.value for name, value in self.recorded(asset, partition).metadata.items()}

    def table(self, schema: TableSchema, **equal: str) -> pl.DataFrame:
        return self.lake.read(schema, **equal)

    def edit_shard(self, shard: int, row: int, text: str) -> None:
        """Write another text into one row of a source file."""
        file = self.root / f"data/{shard:05d}.jsonl"
        lines = file.read_text().splitlines()
        lines[row] = json.dumps({**json.loads(lines[row]), "text": text})
        file.write_text("\n".join(lines))


@pytest.fixture(autouse=True)
def _no_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LORIF_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _locks_of_this_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leases of devices hold for a machine: what else runs on it is not to be waited for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.getbasetemp()))
        yield


@pytest.fixture(scope="session")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """The project, up to date. Shared by all tests: read it, and leave it as it is."""
    import torch

    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("tiny-project")
    write_tiny_project(root)
    with _instance(root) as instance:
        project = TinyProject.open(root, instance)
        project.update()
        yield project


@pytest.fixture(scope="session")
def ekfac_project(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyProject]:
    """The same data, checkpoints and queries with the curvature `ekfac`, up to date; shared by all tests too."""
    root = tmp_path_factory.mktemp("ekfac") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster", "lake"))
    (root / "lorif.toml").write_text(_SETTINGS.replace(_SVD, _EKFAC))
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject.open(root, instance)
        project.update()
        yield project


@pytest.fixture
def private_project(tiny_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of the project for one test alone; its Dagster knows the partitions, and of no run."""
    with private_copy(tiny_project, tmp_path) as project:
        yield project


@contextmanager
def private_copy(project: TinyProject, folder: Path) -> Iterator[TinyProject]:
    root = folder / "project"
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("dagster", "dagster_home"))
    with dg.DagsterInstance.ephemeral() as instance:
        copied = TinyProject.open(root, instance)
        copied.register_partitions()
        yield copied


@pytest.fixture
def recorded_project(tiny_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """The same with Dagster's records of the runs that made it; slower."""
    root = tmp_path / "project"
    shutil.copytree(tiny_project.root, root)
    with _instance(root) as instance:
        yield TinyProject.open(root, instance)


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow database for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def object_store() -> Iterator[Lake]:
    """A lake in an S3 look-alike, a process of its own: delta-rs holds Python's lock while it waits for an answer."""
    boto3 = pytest.importorskip("boto3", reason="needs moto[server]")
    pytest.importorskip("moto.server", reason="needs moto[server]")
    url = f"http://127.0.0.1:{free_port()}"
    start = f"from moto.server import main; main(['-p', '{url.rpartition(':')[2]}'])"
    server = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    options = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=5)
                break
            except OSError:
                time.sleep(0.1)
        boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        ).create_bucket(Bucket="lake")
        yield Lake(
            root="s3://lake/project/",
            storage_options={**options, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"},
        )
    finally:
        server.terminate()
        server.wait(10)


def _instance(root: Path) -> dg.DagsterInstance:
    # One database for the events of all runs: Dagster's default makes one of each run, which takes longer than the run.
    home = root / "dagster"
    home.mkdir(exist_ok=True)
    events = {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": str(home)},
    }
    return dg.DagsterInstance.local_temp(
        str(home), overrides={"telemetry": {"enabled": False}, "event_log_storage": events}
    )


def write_tiny_project(root: Path) -> None:
    """Write settings, three shards of data, three queries and two checkpoints, as the curvature `svd` takes them."""
    (root / "lorif.toml").write_text(_SETTINGS)
    _write_data(root / "data")
    _write_queries(root / "queries")
    tokenizer = tiny_tokenizer()
    for step, name in enumerate(CHECKPOINTS):
        write_checkpoint(root / "checkpoints" / name, tokenizer, seed=step)


def _texts(shard: int) -> list[str]:
    words = _SENTENCE.split()
    n = len(words)
    return [
        " ".join(words[(3 * shard + row * (1 + k % 5) + k) % n] for k in range(4 + (5 * row + shard) % 9))
        for row in range(ROWS_PER_SHARD)
    ]


def _write_data(folder: Path) -> None:
    folder.mkdir()
    for shard in range(len(SHARDS)):
        rows = [
            json.dumps({"id": f"doc{shard}-{row}", "text": text, "topic": ("with", "files")[row % 2]})
            for row, text in enumerate(_texts(shard))
        ]
        if shard == 2:
            rows += ["{not json", json.dumps({"id": "empty", "text": " "})]
        (folder / f"{shard:05d}.jsonl").write_text("\n".join(rows))


def _write_queries(folder: Path) -> None:
    folder.mkdir()
    queries = [("the with statement", " opens a file"), ("its block", " ends"), ("a file", " fails by an error")]
    rows = [{"id": f"q{k}", "prompt": prompt, "completion": said} for k, (prompt, said) in enumerate(queries)]
    (folder / f"{QUERY_SET}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def tiny_tokenizer() -> Any:
    """A byte-level BPE of 280 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(0), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")


def write_checkpoint(folder: Path, tokenizer: Any, seed: int) -> None:
    """A GPT-2 of two layers and width 16 with random weights, large enough that attention is not uniform."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=16,
        n_layer=2,
        n_head=2,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStandIn]:
    """An empty hub on this machine, and an empty cache; without a token."""
    from lorif_assets.hub import connection

    stand_in = HubStandIn()
    monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(connection, "_silent_since", {})
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The files of a tiny model with its tokenizer, as `save_pretrained` writes them."""
    folder = tmp_path_factory.mktemp("saved-model")
    write_checkpoint(folder, tiny_tokenizer(), seed=5)
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
