"""Which checkpoints are compared, in which order, and what makes a comparison another one."""

from lorif_assets.attribution.checkpoints.compared import NO_SCORES, Participants, participants
from lorif_assets.config.recipe import Recipe
from tests.pages.comparison.stored_scores import QUERY_SET, StoredScores


def found(store: StoredScores) -> Participants:
    return participants(store.lake, [QUERY_SET], store.recipe)[QUERY_SET]


def test_checkpoints_follow_each_other_by_step_and_then_by_name(scored: StoredScores) -> None:
    for name, step in (("b", 20), ("unnumbered", None)):
        scored.checkpoint(name, step)
        scored.scores(name, {"q0": ["e00"]})
    assert [checkpoint.name for checkpoint in found(scored).checkpoints] == [
        "unnumbered",
        "step-3",
        "b",
        "step-20",
        "step-100",
    ]
    assert [(pair.older.step, pair.newer.step) for pair in found(scored).neighbours] == [
        (None, 3),
        (3, 20),
        (20, 20),
        (20, 100),
    ]


def test_a_checkpoint_without_scores_or_with_those_of_another_recipe_is_left_out_with_the_reason(
    scored: StoredScores,
) -> None:
    other = Recipe(fisher_damping=3.0)
    scored.scores("step-20", {"q0": ["e00"]}, recipe=other)
    scored.checkpoint("step-200", 200)
    assert [checkpoint.name for checkpoint in found(scored).checkpoints] == ["step-3", "step-100"]
    assert found(scored).exclusions == {
        "step-20": f"its scores were computed under the recipe {other.score_hash}, "
        f"the settings are {scored.recipe.score_hash}",
        "step-200": NO_SCORES,
    }


def test_scores_of_another_query_set_do_not_take_part(store: StoredScores) -> None:
    store.scores("step-3", {"q0": ["e00"]}, query_set="others")
    assert found(store).checkpoints == ()
    assert set(found(store).exclusions.values()) == {NO_SCORES}


def test_nothing_is_compared_in_an_empty_lake(tmp_path) -> None:
    assert found(StoredScores.at(tmp_path)) == Participants((), {})


def test_the_version_changes_with_the_scores_of_any_checkpoint_and_only_with_them(scored: StoredScores) -> None:
    before = found(scored).version
    scored.checkpoint("step-200", 200)
    assert found(scored).version == before
    versions = {before}
    for name in ("step-3", "step-20", "step-100", "step-200"):
        scored.scores(name, {"q0": ["e00"]}, version=f"{name} scored again")
        versions.add(found(scored).version)
    assert len(versions) == 5
