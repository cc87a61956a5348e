"""A tiny Llama and two adapters on it, attributed through the assets: merged, and by the adapters' own matrices."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from lorif_assets.cli.doctor import diagnose
from lorif_assets.cli.status import show_status
from lorif_assets.lake.attribution_tables import CHECKPOINTS, GRADIENT_FACTORS, QUERY_SCORES, QUERY_SUMMARIES
from resources.checkpoints import CheckpointsResource
from tests.conftest import QUERY_SET, SHARDS, TinyProject, tiny_tokenizer
from tests.models.tiny_adapters import with_peft, write_adapter, write_base

STEPS = ("checkpoint-20", "checkpoint-40")
SCORES = ["checkpoint", "query_id", "side", "rank", "example_id", "score"]


@pytest.fixture(scope="module")
def made(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project's data and queries, with a base model in `base` and adapters on it in `checkpoints`."""
    root = tmp_path_factory.mktemp("with-adapters") / "project"
    ignored = shutil.ignore_patterns("dagster", "lake", "checkpoints")
    shutil.copytree(tiny_project.root, root, ignore=ignored)
    settings = (root / "lorif.toml").read_text()
    (root / "lorif.toml").write_text(settings.replace('include_layers = ["*.attn.c_attn", "*.mlp.c_fc"]\n', ""))
    base = write_base(root / "base", tiny_tokenizer())
    for step, name in enumerate(STEPS):
        adapter = write_adapter(root / "checkpoints" / name, base, seed=step)
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
    return root


@pytest.fixture
def adapters(made: Path, tmp_path: Path) -> Iterator[Callable[[str], TinyProject]]:
    """A project of its own, by the lines that its settings have besides under `[recipe]`."""
    with dg.DagsterInstance.ephemeral() as instance:

        def project(recipe: str = "") -> TinyProject:
            root = Path(shutil.copytree(made, tmp_path / "project"))
            settings = (root / "lorif.toml").read_text()
            (root / "lorif.toml").write_text(settings.replace("[recipe]\n", f"[recipe]\n{recipe}\n"))
            return TinyProject.open(root, instance)

        yield project


def scores(project: TinyProject) -> pl.DataFrame:
    return project.table(QUERY_SCORES).select(SCORES).sort(SCORES[:4])


def test_adapters_and_their_base_are_attributed_like_the_whole_models_that_they_are(
    adapters: Callable[[str], TinyProject], tmp_path: Path
) -> None:
    project = adapters("averaged_checkpoints = 1")
    names = ("base", *STEPS)
    updates = project.update()
    assert updates["checkpoints"] == set(names)
    assert updates["gradient_factors"] == {f"{name}|{shard}" for name in names for shard in SHARDS}
    assert project.update() == {}
    steps = dict(project.table(CHECKPOINTS).select("checkpoint", "step").iter_rows())
    assert steps == {"base": 0, "checkpoint-20": 20, "checkpoint-40": 40}

    whole = tmp_path / "whole"
    shutil.copytree(project.root, whole, ignore=shutil.ignore_patterns("lake", "checkpoints"))
    models: dict[str, Any] = {"base": AutoModelForCausalLM.from_pretrained(project.root / "base")}
    for name in STEPS:
        models[name] = with_peft(project.root / "base", project.root / "checkpoints" / name).merge_and_unload()
    for name, model in models.items():
        model.save_pretrained(whole / "checkpoints" / name)
        tiny_tokenizer().save_pretrained(whole / "checkpoints" / name)
    with dg.DagsterInstance.ephemeral() as instance:
        expected = TinyProject.open(whole, instance)
        expected.update()
        assert scores(project).drop("score").equals(scores(expected).drop("score"))
        assert scores(project)["score"].to_list() == pytest.approx(scores(expected)["score"].to_list(), rel=1e-4)


def test_scores_of_a_fine_tune_are_averaged_with_those_of_its_base_model_without_being_told(
    adapters: Callable[[str], TinyProject],
) -> None:
    project = adapters("").with_settings(active={"checkpoints": "auto"})
    project.update()
    summaries = project.table(QUERY_SUMMARIES).select("checkpoint", "averaged").unique().sort("checkpoint")
    averaged = {name: list(json.loads(weights)) for name, weights in summaries.iter_rows()}
    assert averaged == {
        "base": ["base"],
        "checkpoint-20": ["base", "checkpoint-20"],
        "checkpoint-40": ["base", "checkpoint-20", "checkpoint-40"],
    }
    assert project.update() == {}
    alone = project.with_settings(active={"checkpoints": "auto"}, recipe={"averaged_checkpoints": 1})
    assert {f"{name}|{QUERY_SET}" for name in STEPS} == set(alone.update()["query_scores"])
    assert set(project.update()["query_scores"]) == {f"{name}|{QUERY_SET}" for name in STEPS}


def test_the_base_is_read_once_for_the_adapters_of_a_run(
    adapters: Callable[[str], TinyProject], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = adapters("")
    for name in ("base", *STEPS):
        project.run("checkpoints", name)
    for shard in SHARDS:
        project.run("training_examples", shard)
    read: list[str] = []
    load = AutoModelForCausalLM.from_pretrained

    def counted(folder: Path, **options: Any) -> Any:
        read.append(Path(folder).name)
        return load(folder, **options)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", counted)
    keys = [f"{name}|{shard}" for name in STEPS for shard in SHARDS]
    assert project.run("gradient_factors", keys[0], keys[-1]).success
    assert read == ["base"]


def test_an_edited_base_makes_all_of_its_adapters_stale(adapters: Callable[[str], TinyProject]) -> None:
    project = adapters("")
    for name in ("base", *STEPS):
        project.run("checkpoints", name)
    assert not project.stale("checkpoints")
    write_base(project.root / "base", tiny_tokenizer(), seed=7)
    assert set(project.stale("checkpoints")) == {"base", *STEPS}


def test_an_adapters_own_matrices_are_attributed_on_request(adapters: Callable[[str], TinyProject]) -> None:
    project = adapters('track = "adapter"')
    updates = project.update()
    assert updates["checkpoints"] == set(STEPS)
    assert updates["query_scores"] == {f"{name}|{QUERY_SET}" for name in STEPS}
    assert project.update() == {}
    (layers,) = project.table(CHECKPOINTS, checkpoint=STEPS[0])["layers"].to_list()
    shapes = {layer["layer"]: (layer["d1"], layer["d2"]) for layer in json.loads(layers)}
    assert len(shapes) == 12
    # Rank 3 stays whole, and the other side, of up to 64, too.
    assert shapes["model.layers.0.self_attn.q_proj.lora_A.default"] == (16, 3)
    assert shapes["model.layers.0.mlp.down_proj.lora_A.default"] == (24, 3)
    assert shapes["model.layers.0.self_attn.q_proj.lora_B.default"] == (3, 16)
    assert project.table(GRADIENT_FACTORS, checkpoint=STEPS[0]).height == 36


def test_what_is_tracked_makes_the_factors_stale(adapters: Callable[[str], TinyProject]) -> None:
    project = adapters("")
    project.update()
    assert set(project.with_settings(recipe={"track": "adapter"}).stale("checkpoints")) == set(STEPS)


def test_dagsters_resource_hands_out_the_checkpoints_of_the_settings(adapters: Callable[[str], TinyProject]) -> None:
    project = adapters("").with_settings(checkpoints={"base_model": "base", "include_base": False})
    resource = CheckpointsResource.of(project.opened.checkpoints)
    handed_out = resource.create_resource(dg.build_init_resource_context())
    assert handed_out == project.opened.checkpoints
    assert [checkpoint.name for checkpoint in handed_out.find()] == list(STEPS)


def test_doctor_and_status_say_what_was_found_and_what_was_passed_over(
    adapters: Callable[[str], TinyProject], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = adapters("")
    (project.root / "checkpoints/checkpoint-60").mkdir()
    monkeypatch.setenv("LORIF_CONFIG", str(project.root / "lorif.toml"))

    def said(command: Callable[[Console], Any]) -> str:
        console = Console(file=io.StringIO(), width=250)
        command(console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    diagnosis = said(diagnose)
    assert f"3: base to checkpoint-40; adapters on {project.root / 'base'}" in diagnosis
    assert "14 tracked: model.layers.0.self_attn.q_proj to model.layers.1.mlp.down_proj" in diagnosis
    assert "checkpoint-60 is passed over: it has no model" in diagnosis
    assert "checkpoint-60 is passed over: it has no model" in said(show_status)
    (project.root / "base").rename(project.root / "moved")
    assert "Set `checkpoints.base_model` to the folder" in said(diagnose)
    assert "the checkpoint checkpoint-20 is left out: the base model 'base' of the adapter" in said(show_status)
