"""Which stale partitions are launched: those of which no input is about to change, by what assets declare."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from lorif_assets.assets.graph import ASSETS
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.freshness.stale import Stale
from lorif_assets.freshness.view import Freshness
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject

OLD, NEW = CHECKPOINTS
LAYERS = ("h.0", "h.1")


def pairs(checkpoints: Collection[str], others: Collection[str]) -> set[str]:
    return {f"{checkpoint}|{other}" for checkpoint in checkpoints for other in others}


FACTORS = pairs(CHECKPOINTS, SHARDS)
CURVATURE = pairs(CHECKPOINTS, LAYERS)
SCORES = pairs(CHECKPOINTS, ["questions", "others"])


def ready(freshness: Freshness, stale: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """What may run where these partitions are stale, and no other."""
    found = {name: dict.fromkeys(sorted(keys), Stale("changed", "new")) for name, keys in stale.items()}
    assets = [replace(asset, find_stale=lambda _, name=asset.name: found.get(name, {})) for asset in ASSETS]
    return {name: set(partitions) for name, partitions in ready_partitions(freshness, assets) if partitions}


@pytest.fixture
def freshness(tiny_project: TinyProject) -> Freshness:
    return tiny_project.freshness


def with_influcoder(project: TinyProject, **recipe: object) -> Freshness:
    return project.with_settings(influcoder={"enabled": True}, recipe=recipe).freshness


def test_a_shard_to_read_holds_up_its_own_factors_and_everything_that_is_made_of_all_shards(
    freshness: Freshness,
) -> None:
    stale = {
        "training_examples": {SHARDS[0]},
        "gradient_factors": FACTORS,
        "svd_preconditioners": CURVATURE,
        "query_scores": SCORES,
    }
    assert ready(freshness, stale) == {
        "training_examples": {SHARDS[0]},
        "gradient_factors": pairs(CHECKPOINTS, SHARDS[1:]),
    }


def test_a_new_shard_holds_up_scores_though_nothing_between_is_known_to_be_stale(freshness: Freshness) -> None:
    stale = {"training_examples": {"docs-00009-00000"}, "query_scores": SCORES}
    assert ready(freshness, stale) == {"training_examples": {"docs-00009-00000"}}


def test_a_checkpoint_is_held_up_by_what_is_its_own_alone(freshness: Freshness) -> None:
    stale = {"gradient_factors": {f"{OLD}|{SHARDS[0]}"}, "svd_preconditioners": CURVATURE, "query_scores": SCORES}
    assert ready(freshness, stale) == {
        "gradient_factors": {f"{OLD}|{SHARDS[0]}"},
        "svd_preconditioners": pairs([NEW], LAYERS),
    }


def test_bases_come_before_factors_and_wait_for_all_data(ekfac_project: TinyProject) -> None:
    bases = pairs([OLD], LAYERS)
    stale = {"kfac_bases": bases, "gradient_factors": FACTORS}
    assert ready(ekfac_project.freshness, stale) == {"kfac_bases": bases, "gradient_factors": pairs([NEW], SHARDS)}
    waiting = ready(ekfac_project.freshness, {"training_examples": {SHARDS[0]}, "kfac_bases": bases})
    assert waiting == {"training_examples": {SHARDS[0]}}


def test_frozen_bases_do_not_hold_up_the_factors_of_shards_that_are_there(ekfac_project: TinyProject) -> None:
    stale = {"training_examples": {SHARDS[0]}, "gradient_factors": FACTORS}
    assert ready(ekfac_project.freshness, stale)["gradient_factors"] == pairs(CHECKPOINTS, SHARDS[1:])


def test_a_query_set_to_read_holds_up_its_own_scores(freshness: Freshness) -> None:
    stale = {"query_examples": {"questions"}, "query_scores": SCORES}
    assert ready(freshness, stale) == {
        "query_examples": {"questions"},
        "query_scores": pairs(CHECKPOINTS, ["others"]),
    }


def test_what_shows_scores_waits_for_those_that_are_stale_and_not_for_data_to_come(freshness: Freshness) -> None:
    stale = {
        "training_examples": {SHARDS[0]},
        "query_scores": {f"{OLD}|questions"},
        "attribution_report": SCORES,
        "checkpoint_comparison": {"questions", "others"},
    }
    assert ready(freshness, stale) == {
        "training_examples": {SHARDS[0]},
        "attribution_report": SCORES - {f"{OLD}|questions"},
        "checkpoint_comparison": {"others"},
    }


def test_averaged_scores_wait_for_every_checkpoint_that_they_are_averaged_over(tiny_project: TinyProject) -> None:
    stale = {"gradient_factors": {f"{OLD}|{SHARDS[0]}"}, "query_scores": pairs(CHECKPOINTS, ["questions"])}
    alone, averaged = (
        tiny_project.with_settings(recipe={"averaged_checkpoints": n}).freshness for n in (1, len(CHECKPOINTS))
    )
    assert ready(alone, stale)["query_scores"] == {f"{NEW}|questions"}
    assert "query_scores" not in ready(averaged, stale)


def test_scores_wait_for_embeddings_only_where_these_recall_what_is_scored(tiny_project: TinyProject) -> None:
    stale = {"influence_embeddings": {f"{OLD}|{SHARDS[0]}"}, "query_scores": pairs(CHECKPOINTS, ["questions"])}
    exact = ready(with_influcoder(tiny_project), stale)
    assert exact["query_scores"] == pairs(CHECKPOINTS, ["questions"])
    recalled = ready(with_influcoder(tiny_project, recall="influcoder"), stale)
    assert recalled["query_scores"] == {f"{NEW}|questions"}


def test_an_encoder_waits_for_its_targets_alone_and_targets_for_all_data_and_scores_inputs(
    tiny_project: TinyProject,
) -> None:
    freshness = with_influcoder(tiny_project)
    stale = {
        "training_examples": {SHARDS[0]},
        "influence_targets": {OLD},
        "influcoder_encoder": {OLD, NEW},
        "influence_embeddings": FACTORS,
    }
    assert ready(freshness, stale) == {"training_examples": {SHARDS[0]}, "influcoder_encoder": {NEW}}
    stale = {"svd_preconditioners": pairs([OLD], LAYERS), "influence_targets": {OLD, NEW}}
    assert ready(freshness, stale)["influence_targets"] == {NEW}


def test_embeddings_wait_for_their_shard_and_encoder(tiny_project: TinyProject) -> None:
    stale = {"training_examples": {SHARDS[0]}, "influcoder_encoder": {OLD}, "influence_embeddings": FACTORS}
    found = ready(with_influcoder(tiny_project), stale)
    assert found["influence_embeddings"] == pairs([NEW], SHARDS[1:])


def test_a_query_file_that_cannot_be_read_keeps_no_encoder_from_being_trained(tiny_project: TinyProject) -> None:
    stale = {"query_examples": {"questions"}, "influence_targets": {OLD}}
    assert ready(with_influcoder(tiny_project), stale)["influence_targets"] == {OLD}
