"""What runs after a change, and what does not: the contract of "incremental"."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.errors import LorifError, SettingsError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES
from tests.config.test_recipe import FIELDS, SVD_FIELDS
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, private_copy

LAYERS = {f"transformer.h.{block}.{layer}" for block in (0, 1) for layer in ("attn.c_attn", "mlp.c_fc")}
OLD, NEW = CHECKPOINTS


def pairs(checkpoints: tuple[str, ...] | list[str], others: Any) -> set[str]:
    return {f"{checkpoint}|{other}" for checkpoint in checkpoints for other in others}


def with_bases(project: TinyProject, *checkpoints: str) -> dict[str, set[str]]:
    """The bases of some checkpoints, where the curvature has any."""
    is_ekfac = project.settings.recipe.curvature == "ekfac"
    return {"kfac_bases": pairs(list(checkpoints), LAYERS)} if is_ekfac else {}


def after_the_factors(project: TinyProject, *checkpoints: str) -> dict[str, set[str]]:
    """Everything downstream of the factors of some checkpoints."""
    return {
        curvature_of(project.settings.recipe).table.name: pairs(list(checkpoints), LAYERS),
        "query_scores": pairs(list(checkpoints), [QUERY_SET]),
        "attribution_report": pairs(list(checkpoints), [QUERY_SET]),
        "checkpoint_comparison": {QUERY_SET},
    }


@pytest.fixture(params=["svd", "ekfac"])
def private_project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyProject]:
    shared = {"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param]
    with private_copy(request.getfixturevalue(shared), tmp_path) as project:
        yield project


def stale(project: TinyProject) -> dict[str, set[str]]:
    """What a glance at the tables shows as out of date, asset by asset."""
    found = {asset.name: set(project.stale(asset.name)) for asset in ASSETS}
    return {name: keys for name, keys in found.items() if keys}


def factor_files(project: TinyProject) -> dict[tuple[str, str], str]:
    return {(name, file.shard): file.path for name in CHECKPOINTS for file in project.lake.factor_files(name)}


# --- Nothing changed -------------------------------------------------------------------------------------------------


def test_nothing_is_stale_after_a_full_run_and_a_second_one_does_nothing(tiny_project: TinyProject) -> None:
    versions = {
        name: tiny_project.lake.table(schema) for name, schema in (("f", GRADIENT_FACTORS), ("s", QUERY_SCORES))
    }
    before = {name: table.version() for name, table in versions.items() if table}
    assert stale(tiny_project) == {}
    assert tiny_project.update() == {}
    versions = {
        name: tiny_project.lake.table(schema) for name, schema in (("f", GRADIENT_FACTORS), ("s", QUERY_SCORES))
    }
    assert {name: table.version() for name, table in versions.items() if table} == before


def test_a_copied_project_is_as_fresh_as_the_original(private_project: TinyProject) -> None:
    assert stale(private_project) == {}


# --- The recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [field for field, (_, stage) in FIELDS.items() if stage == "scores"])
def test_a_field_of_the_scores_renews_the_scores_alone(tiny_project: TinyProject, field: str) -> None:
    changed = tiny_project.with_settings(recipe={field: FIELDS[field][0]})
    assert set(stale(changed)) == {"query_scores", "attribution_report", "checkpoint_comparison"}


@pytest.mark.parametrize("field", [field for field, (_, stage) in SVD_FIELDS.items() if stage == "preconditioners"])
def test_a_field_of_the_curvature_leaves_the_factors_as_they_are(tiny_project: TinyProject, field: str) -> None:
    changed = tiny_project.with_settings(recipe={field: SVD_FIELDS[field][0]})
    assert stale(changed) == after_the_factors(tiny_project, OLD, NEW)


FACTOR_FIELDS = {field: value for field, (value, stage) in FIELDS.items() if stage == "factors" and field != "preset"}


# Where the project has the value there, the default.
OTHER_VALUES = {"curvature": "ekfac", "append_eos": True}


@pytest.mark.parametrize(("field", "value"), [*(FACTOR_FIELDS | OTHER_VALUES).items()])
def test_a_field_of_the_factors_shows_first_in_the_recorded_checkpoints(
    tiny_project: TinyProject, field: str, value: Any
) -> None:
    # A bound on the factor goes with a largest width.
    width = {"max_width": 8} if field == "max_factor" else {}
    changed = tiny_project.with_settings(recipe={**width, field: value})
    assert {name: keys for name, keys in stale(changed).items() if name != "checkpoint_comparison"} == {
        "checkpoints": {OLD, NEW}
    }
    assert {stale.reason for stale in changed.stale("checkpoints").values()} == {"the recipe changed"}


def test_another_rank_renews_the_factors_and_what_follows_and_reads_no_data_again(private_project: TinyProject) -> None:
    changed = private_project.with_settings(recipe={"rank": 3})
    assert changed.update() == {
        "checkpoints": {OLD, NEW},
        **with_bases(private_project, OLD, NEW),
        "gradient_factors": pairs(CHECKPOINTS, SHARDS),
        **after_the_factors(private_project, OLD, NEW),
    }
    assert stale(changed) == {}


def test_damping_and_rank_of_the_curvature_leave_the_factor_files_untouched(private_project: TinyProject) -> None:
    before = factor_files(private_project)
    changed = private_project.with_settings(recipe={"damping": 0.5, "r": 4, "fisher_damping": 0.5})
    assert changed.update() == after_the_factors(private_project, OLD, NEW)
    assert factor_files(changed) == before


def test_settings_outside_of_the_recipe_make_nothing_stale(tiny_project: TinyProject) -> None:
    changed = tiny_project.with_settings(
        batch={"tokens": 17, "scan_rows": 3}, devices={"devices": ("cpu",)}, tracking={"experiment": "other"}
    )
    assert stale(changed) == {}


# --- The data --------------------------------------------------------------------------------------------------------


def test_an_edited_shard_renews_its_own_factors_and_no_other_shards(private_project: TinyProject) -> None:
    before = factor_files(private_project)
    private_project.edit_shard(1, 4, "an error closes the file")
    assert private_project.update() == {
        "training_examples": {SHARDS[1]},
        "gradient_factors": pairs(CHECKPOINTS, [SHARDS[1]]),
        **after_the_factors(private_project, OLD, NEW),
    }
    after = factor_files(private_project)
    assert {shard for key in before for shard in [key[1]] if before[key] != after[key]} == {SHARDS[1]}
    assert stale(private_project) == {}


def test_a_file_that_was_only_touched_is_read_again_and_nothing_else(private_project: TinyProject) -> None:
    os.utime(private_project.root / "data/00001.jsonl", ns=(1, 1))
    assert private_project.update() == {"training_examples": {SHARDS[1]}}


def test_only_active_checkpoints_follow_the_data(private_project: TinyProject) -> None:
    project = private_project.with_settings(active={"checkpoints": "newest"})
    project.edit_shard(1, 4, "an error closes the file")
    assert project.update() == {
        "training_examples": {SHARDS[1]},
        "gradient_factors": {f"{NEW}|{SHARDS[1]}"},
        **after_the_factors(private_project, NEW),
    }
    assert stale(private_project)["gradient_factors"] == {f"{OLD}|{SHARDS[1]}"}


def test_a_new_shard_gets_factors_and_the_old_ones_keep_theirs(private_project: TinyProject) -> None:
    before = factor_files(private_project)
    (private_project.root / "data/00003.jsonl").write_text('{"id": "new", "text": "a file fails by an error"}')
    new = "docs-00003-00000"
    assert private_project.update() == {
        "training_examples": {new},
        "gradient_factors": pairs(CHECKPOINTS, [new]),
        **after_the_factors(private_project, OLD, NEW),
    }
    assert before.items() <= factor_files(private_project).items()
    assert private_project.figures("query_scores", f"{NEW}|{QUERY_SET}")["examples_scanned"] == 37


# --- Queries and checkpoints -----------------------------------------------------------------------------------------


def test_a_new_query_set_gets_its_scores_and_nothing_else_runs(private_project: TinyProject) -> None:
    query = json.dumps({"id": "q", "prompt": "a file", "completion": " ends"})
    (private_project.root / "queries/more.jsonl").write_text(query)
    expected = pairs(CHECKPOINTS, ["more"])
    assert private_project.update() == {
        "query_examples": {"more"},
        "query_scores": expected,
        "attribution_report": expected,
        "checkpoint_comparison": {"more"},
    }


def test_inactive_query_sets_are_left_alone(private_project: TinyProject) -> None:
    (private_project.root / "queries/more.jsonl").write_text('{"prompt": "a file", "completion": " ends"}')
    assert stale(private_project.with_settings(active={"query_sets": (QUERY_SET,), "checkpoints": "all"})) == {}


def test_a_new_checkpoint_is_attributed_and_the_others_are_left_alone(private_project: TinyProject) -> None:
    folder, new = private_project.root / "checkpoints", "step-000300"
    shutil.copytree(folder / OLD, folder / new)
    assert private_project.update() == {
        "checkpoints": {new},
        "gradient_factors": pairs([new], SHARDS),
        **with_bases(private_project, new),
        **after_the_factors(private_project, new),
    }


def test_a_checkpoint_that_was_only_touched_is_hashed_again_and_nothing_else(private_project: TinyProject) -> None:
    os.utime(private_project.root / "checkpoints" / OLD / "model.safetensors", ns=(1, 1))
    assert private_project.update() == {"checkpoints": {OLD}}


def test_a_checkpoint_with_other_layers_is_attributed_beside_the_others(private_project: TinyProject) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = private_project.root / "checkpoints"
    tokenizer = AutoTokenizer.from_pretrained(folder / OLD)
    deeper = GPT2Config.from_pretrained(folder / OLD, n_layer=3)
    GPT2LMHeadModel(deeper).save_pretrained(folder / "step-000300")
    tokenizer.save_pretrained(folder / "step-000300")
    layers = LAYERS | {"transformer.h.2.attn.c_attn", "transformer.h.2.mlp.c_fc"}
    updates = private_project.update()
    assert updates[curvature_of(private_project.settings.recipe).table.name] == pairs(["step-000300"], layers)
    assert stale(private_project) == {}


# --- What is active --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "active"), [("newest", (NEW,)), ("all", (OLD, NEW)), ((OLD,), (OLD,))])
def test_active_checkpoints_are_the_newest_all_or_those_named(
    tiny_project: TinyProject, wanted: Any, active: tuple[str, ...]
) -> None:
    assert tuple(tiny_project.with_settings(active={"checkpoints": wanted}).freshness.active_checkpoints) == active


@pytest.mark.parametrize("field", ["checkpoints", "query_sets"])
def test_an_active_name_that_is_not_there_is_an_error_that_names_the_setting(
    tiny_project: TinyProject, field: str
) -> None:
    project = tiny_project.with_settings(active={field: ("nonsense",)})
    with pytest.raises(SettingsError, match=rf"`active\.{field}` names 'nonsense', which does not exist; found "):
        project.update()


def test_an_active_name_of_a_link_to_a_step_is_an_error_that_names_the_step(private_project: TinyProject) -> None:
    (private_project.root / "checkpoints/best").symlink_to(OLD)
    project = private_project.with_settings(active={"checkpoints": ("best",)})
    with pytest.raises(
        SettingsError, match=rf"names 'best', which cannot be used: .*/best .*is a link to {OLD}; found"
    ):
        _ = project.freshness.active_checkpoints


# --- Failures --------------------------------------------------------------------------------------------------------


def test_what_an_asset_raises_is_an_error_that_names_asset_partition_and_cause(private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").write_text('{"id": "x", "text": ""}')
    with pytest.raises(LorifError) as failure:
        private_project.update()
    message = str(failure.value)
    assert f"materializing training_examples for {SHARDS[1]} failed" in message
    assert "none of 1 rows can be used (row 0: text is empty)" in message
    assert "(Dagster run " in message


def test_an_update_goes_on_where_the_one_before_it_failed(private_project: TinyProject) -> None:
    good = (private_project.root / "data/00001.jsonl").read_text()
    private_project.edit_shard(0, 4, "an error closes the file")
    (private_project.root / "data/00001.jsonl").write_text('{"id": "x", "text": ""}')
    with pytest.raises(LorifError):
        private_project.update()
    # All but the failed shard was done, with what was stored of it.
    assert stale(private_project) == {"training_examples": {SHARDS[1]}}
    changed = good.replace("file", "error")
    assert changed != good
    (private_project.root / "data/00001.jsonl").write_text(changed)
    updates = private_project.update()
    assert updates["training_examples"] == {SHARDS[1]}
    assert updates["gradient_factors"] == pairs(CHECKPOINTS, [SHARDS[1]])
