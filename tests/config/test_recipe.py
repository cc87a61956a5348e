"""The recipe's hashes: each field changes the stages that depend on it, and no other."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.recipe_fields import TruncationRule

# Of every field: a value that is not the default, and the first stage whose result depends on it. A field that is
# missing here fails the test below: it would change the scores and no hash.
FIELDS: dict[str, tuple[Any, str]] = {
    "include_layers": (("*.attn.*",), "factors"),
    "exclude_layers": (("*.mlp.*",), "factors"),
    "projection_factor": (4, "factors"),
    "max_width": (64, "factors"),
    "max_factor": (4, "factors"),
    "seed": (1, "factors"),
    "rank": (2, "factors"),
    "factor_dtype": ("fp32", "factors"),
    "factor_rounds": (4, "factors"),
    "model_dtype": ("bfloat16", "factors"),
    "tf32": (True, "factors"),
    "max_length": (128, "factors"),
    "truncation": ("keep_end", "factors"),
    "prompt_completion": ("apart", "factors"),
    "append_eos": (False, "factors"),
    "template_date": ("2025-01-01", "factors"),
    "curvature": ("svd", "factors"),
    "preset": ("paper", "factors"),
    "track": ("adapter", "factors"),
    "query_rank": (8, "scores"),
    "top_k": (10, "scores"),
    "added_data": ("merged", "scores"),
    "merge_tolerance": (0.1, "scores"),
    "recall": ("influcoder", "scores"),
    "averaged_checkpoints": (2, "scores"),
}
# Fields of averages over checkpoints: without them they change nothing.
AVERAGING_FIELDS: dict[str, tuple[Any, str]] = {
    "checkpoint_weights": ("equal", "scores"),
    "source_time": (3.0, "scores"),
}
# Fields of the cascade: without it they change nothing.
RECALL_FIELDS: dict[str, tuple[Any, str]] = {"candidates": (10, "scores"), "recall_agreement": (0.5, "scores")}
# Fields of the curvature `svd`: without it they change nothing.
SVD_FIELDS: dict[str, tuple[Any, str]] = {
    "r": (64, "preconditioners"),
    "oversample": (10, "preconditioners"),
    "refinements": (1, "preconditioners"),
    "damping_rule": ("leading", "preconditioners"),
    "damping": (0.1, "preconditioners"),
    "curvature_form": ("truncated", "scores"),
}
# Fields of the curvature `ekfac`: without it they change nothing.
EKFAC_FIELDS: dict[str, tuple[Any, str]] = {
    "bytes_per_example": (10_000, "factors"),
    "rank_by_layer": (False, "factors"),
    "kfac_examples": (100, "factors"),
    "kfac_labels": ("model", "factors"),
    "whitening_damping": (0.5, "factors"),
    "whitening_rank": (64, "factors"),
    "fisher_share": (0.25, "factors"),
    "fisher_damping": (0.5, "preconditioners"),
    "axis_sizes": (True, "scores"),
}
CHANGES = {
    "factors": {"factors", "preconditioners", "scores"},
    "preconditioners": {"preconditioners", "scores"},
    "scores": {"scores"},
}


def hashes(recipe: Recipe) -> dict[str, str]:
    return {
        "factors": recipe.factor_hash,
        "preconditioners": recipe.preconditioner_hash,
        "scores": recipe.score_hash,
    }


@pytest.mark.parametrize("field", Recipe.model_fields)
def test_a_field_changes_exactly_the_hashes_of_the_stages_that_depend_on_it(field: str) -> None:
    base = {"curvature": "svd"} if field in SVD_FIELDS else {}
    base |= {"recall": "influcoder"} if field in RECALL_FIELDS else {}
    base |= {"averaged_checkpoints": 2} if field in AVERAGING_FIELDS else {}
    base |= {"checkpoint_weights": "source"} if field == "source_time" else {}
    value, stage = {**FIELDS, **SVD_FIELDS, **EKFAC_FIELDS, **RECALL_FIELDS, **AVERAGING_FIELDS}[field]
    default, changed = hashes(Recipe(**base)), hashes(Recipe(**{**base, field: value}))
    assert {name for name in default if default[name] != changed[name]} == CHANGES[stage]


@pytest.mark.parametrize(
    ("fields", "factors", "scores"),
    [
        ({"preset": "whitened"}, "1d158c03b6a68a8c7902617615d45463", "b14de2d2f297e0073e20dc8465083260"),
        ({"curvature": "svd"}, "7c749ea5cd31914746556d1ebe10c656", "647f1945fa5ff0a703f64c6dcd2c7b9c"),
        ({"preset": "paper"}, "01856d882b301bbe080001b3622cbe3d", "9196702b58c42df59c78e665555f61f5"),
    ],
)
def test_with_the_length_the_cut_and_the_tokens_of_before_the_hashes_are_those_of_before(
    fields: dict[str, Any], factors: str, scores: str
) -> None:
    tokens = {"truncation": "completion_first", "prompt_completion": "apart", "append_eos": False}
    before = Recipe(**fields, max_length=512, **tokens)
    assert (before.factor_hash, before.score_hash) == (factors, scores)
    assert before.tokens_version == 512
    now = Recipe(**fields, max_length=512)
    assert (now.factor_hash, now.score_hash) != (factors, scores)
    assert now.tokens_version != 512


def test_queries_keep_what_is_asked_about_whatever_the_training_cut() -> None:
    found = {rule: Recipe(truncation=rule).query_truncation for rule in get_args(TruncationRule)}
    assert found == {
        "keep_start": "drop_early_turns",
        "keep_end": "drop_early_turns",
        "drop_early_turns": "drop_early_turns",
        "completion_first": "completion_first",
    }


def test_without_a_largest_width_the_largest_factor_changes_nothing() -> None:
    assert hashes(Recipe(projection_factor=4, max_factor=2)) == hashes(Recipe(projection_factor=4))


def test_with_a_largest_width_the_projection_factor_changes_nothing() -> None:
    assert hashes(Recipe(max_width=64, projection_factor=2)) == hashes(Recipe(max_width=64, projection_factor=4))


@pytest.mark.parametrize(
    ("curvature", "field"),
    [("svd", field) for field in EKFAC_FIELDS if field != "bytes_per_example"]
    + [("ekfac", field) for field in SVD_FIELDS],
)
def test_a_field_of_the_other_curvature_changes_no_hash(curvature: str, field: str) -> None:
    value, _ = {**SVD_FIELDS, **EKFAC_FIELDS}[field]
    assert hashes(Recipe(curvature=curvature, **{field: value})) == hashes(Recipe(curvature=curvature))


def test_a_byte_budget_needs_bases() -> None:
    with pytest.raises(ValueError, match='`bytes_per_example` needs `curvature = "ekfac"`'):
        Recipe(curvature="svd", bytes_per_example=1_000)


def test_with_a_byte_budget_the_rank_changes_nothing() -> None:
    budget = Recipe(bytes_per_example=1_000)
    assert hashes(budget.model_copy(update={"rank": 2, "rank_by_layer": False})) == hashes(budget)


def test_one_word_gives_the_published_form_and_fields_that_are_set_stay() -> None:
    paper = Recipe.model_validate("paper")
    assert (paper.curvature, paper.rank, paper.factor_dtype) == ("svd", 1, "bf16")
    assert (paper.damping_rule, paper.damping, paper.curvature_form) == ("leading", 0.1, "truncated")
    mine = Recipe.model_validate({"preset": "paper", "damping": 0.2, "rank": 4})
    assert mine == paper.model_copy(update={"damping": 0.2, "rank": 4})
    assert Recipe.model_validate(paper.model_dump()) == paper
    with pytest.raises(ValueError, match="preset"):
        Recipe.model_validate("papyrus")


@pytest.mark.parametrize(
    ("fields", "rank"),
    [
        ({"curvature": "svd", "rank": 3}, 3),
        ({"rank": 3, "rank_by_layer": False}, 3),
        ({"rank": 3}, None),
        ({"rank_by_layer": False, "bytes_per_example": 100}, None),
    ],
)
def test_layers_share_a_rank_unless_bytes_are_spread(fields: dict[str, Any], rank: int | None) -> None:
    assert Recipe(**fields).uniform_rank == rank


def test_tokens_as_they_were_before_there_was_a_choice_have_the_hashes_of_before() -> None:
    tokens = {"truncation": "completion_first", "prompt_completion": "apart", "append_eos": False}
    before = Recipe(preset="whitened", max_length=512, **tokens)
    assert before.factor_hash == "1d158c03b6a68a8c7902617615d45463"
    assert before.score_hash == "b14de2d2f297e0073e20dc8465083260"
    assert before.tokens_version == before.query_tokens_version == 512


def test_the_sizes_of_axes_matter_to_signs_of_whitened_gradients_alone() -> None:
    assert Recipe(axis_sizes=True).knows_axis_sizes
    for fields in ({"factor_dtype": "int4"}, {"curvature": "svd"}):
        known, unknown = Recipe(**fields, axis_sizes=True), Recipe(**fields)
        assert not known.knows_axis_sizes
        assert hashes(known) == hashes(unknown)


def test_whether_eos_is_appended_changes_nothing_about_queries() -> None:
    one, other = Recipe(append_eos=True), Recipe(append_eos=False)
    assert one.query_tokens_version == other.query_tokens_version
    assert one.tokens_version != other.tokens_version


@pytest.mark.parametrize(("field", "value"), [("prompt_completion", "apart"), ("template_date", "2025-01-01")])
def test_other_tokens_of_queries_are_another_version(field: str, value: str) -> None:
    assert Recipe(**{field: value}).query_tokens_version != Recipe().query_tokens_version


# --- What is left to the model ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "width", "size"),
    [
        ({}, "auto", "auto"),
        ({"preset": "auto"}, "auto", "auto"),
        ({"seed": 3, "factor_dtype": "int4", "curvature": "kfac"}, "auto", "auto"),
        ({"projection_factor": 4}, None, "auto"),
        ({"max_width": 100}, 100, "auto"),
        ({"rank": 4}, "auto", None),
        ({"rank_by_layer": False}, "auto", None),
        ({"bytes_per_example": 900}, "auto", 900),
        ({"projection_factor": 1, "rank": 4}, None, None),
        ({"max_width": "auto", "projection_factor": 4}, "auto", "auto"),
        ({"curvature": "svd"}, None, None),
        ({"preset": "whitened"}, None, None),
        ({"preset": "paper"}, None, None),
        ({"preset": "paper", "curvature": "ekfac"}, None, None),
    ],
)
def test_widths_and_bytes_are_left_to_the_model_where_nothing_is_chosen_by_hand(
    fields: dict[str, Any], width: object, size: object
) -> None:
    recipe = Recipe(**fields)
    assert (recipe.max_width, recipe.bytes_per_example) == (width, size)
    assert recipe.is_left_to_the_model == ("auto" in (width, size))
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()).score_hash == recipe.score_hash


def test_one_word_names_each_preset() -> None:
    assert Recipe.model_validate("auto") == Recipe()
    assert Recipe.model_validate("whitened") == Recipe(projection_factor=8, rank=16).model_copy(
        update={"preset": "whitened"}
    )


def test_what_is_left_to_the_model_is_a_recipe_of_its_own() -> None:
    left, by_hand = Recipe(), Recipe(preset="whitened")
    assert hashes(left) != hashes(by_hand)
    assert hashes(left) != hashes(Recipe(max_width=128, bytes_per_example=1_600))
    # Neither the factor nor the rank is looked at.
    assert hashes(left) == hashes(left.model_copy(update={"projection_factor": 2, "rank": 3, "rank_by_layer": False}))


def test_a_field_that_is_changed_takes_the_place_of_what_was_left_to_the_model() -> None:
    assert Recipe(seed=3).changed(projection_factor=4) == Recipe(seed=3, projection_factor=4)
    assert Recipe(seed=3).changed(rank=4) == Recipe(seed=3, rank=4)
    assert Recipe(seed=3).changed(curvature="svd") == Recipe(seed=3, curvature="svd")


@pytest.mark.parametrize("field", ["max_width", "bytes_per_example"])
def test_without_bases_nothing_can_be_left_to_the_model(field: str) -> None:
    with pytest.raises(ValueError, match=rf'`{field}.* needs? `curvature = "ekfac"` or `curvature = "kfac"`'):
        Recipe(curvature="svd", **{field: "auto"})


def test_what_is_left_to_the_model_has_no_number_without_one() -> None:
    with pytest.raises(ValueError, match="the projection depends on the model"):
        _ = Recipe().projection
    with pytest.raises(ValueError, match="the bytes depend on the model"):
        _ = Recipe().byte_budget


@pytest.mark.parametrize("field", ["max_width", "bytes_per_example"])
@pytest.mark.parametrize("value", [0, -1, "some", 1.5])
def test_a_width_or_a_budget_is_a_positive_number_or_auto(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Recipe.model_validate({field: value})


def test_stages_never_share_a_hash() -> None:
    assert len(set(hashes(Recipe()).values())) == 3


def test_hashes_are_the_same_in_every_process_and_release() -> None:
    """They are stored: a change here makes every user's tables stale."""
    assert content_hash({"b": [1, 2.5, None], "a": "ü"}) == "c239a4a8c77eaa057e329e97f7c35441"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=4))
def test_the_order_of_keys_does_not_matter(content: dict[str, Any]) -> None:
    assert content_hash(dict(reversed(content.items()))) == content_hash(content)


@given(json_values, json_values)
def test_different_contents_have_different_hashes(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash(one) == content_hash(other)) == same


@pytest.mark.parametrize(
    ("r", "oversample", "width"), [(8, None, 40), (64, None, 128), (8, 3, 11), (8, 0, 8), (0, None, 0), (0, 5, 5)]
)
def test_the_basis_has_as_many_more_columns_as_r_and_at_least_32_unless_told_otherwise(
    r: int, oversample: int | None, width: int
) -> None:
    assert Recipe(r=r, oversample=oversample).basis_width == width


def test_curvatures_that_share_their_fields_share_no_hash() -> None:
    ekfac, kfac = hashes(Recipe()), hashes(Recipe(curvature="kfac"))
    assert not set(ekfac.values()) & set(kfac.values())
    assert Recipe().fields_in_use == Recipe(curvature="kfac").fields_in_use


def test_the_time_of_segments_counts_for_segments_alone() -> None:
    averaged = {"averaged_checkpoints": 3}
    plain = [Recipe(**averaged, source_time=time).score_hash for time in (10.0, 20.0)]
    assert len({*plain, Recipe(**averaged).score_hash}) == 1
    segments = [Recipe(**averaged, checkpoint_weights="source", source_time=time).score_hash for time in (10.0, 20.0)]
    assert len({*plain, *segments}) == 3
    assert Recipe(checkpoint_weights="source", source_time=20.0).score_hash == Recipe().score_hash
    assert "source_time" not in Recipe(**averaged).fields_in_use


@pytest.mark.parametrize("curvature", ["svd", "adam"])
def test_segments_need_eigenvalues_of_the_loss(curvature: str) -> None:
    with pytest.raises(ValueError, match=f'set `curvature` to "ekfac" or "kfac"; found "{curvature}"'):
        Recipe(curvature=curvature, checkpoint_weights="source", max_width=64, rank=1)


def test_adam_has_the_fields_of_ekfac_and_reads_the_optimizer() -> None:
    assert Recipe(curvature="adam").fields_in_use == Recipe().fields_in_use
    assert Recipe(curvature="adam").factor_hash != Recipe().factor_hash
    assert (Recipe(curvature="adam").reads_optimizer, Recipe().reads_optimizer) == (True, False)
