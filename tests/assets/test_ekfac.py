"""The curvature `ekfac` through the whole pipeline: bases, whitened factors, sums by shard, and the scores they give."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.fitting.measured_width import WidthTrial
from lorif_assets.attribution.stored.checkpoint_record import checkpoint_record
from lorif_assets.automation.withdrawal import removed_shards, withdraw
from lorif_assets.errors import LorifError, MismatchError, SourceError
from lorif_assets.freshness.discovery import discover
from lorif_assets.lake.attribution_tables import (
    EKFAC_PRECONDITIONERS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    QUERY_SCORES,
    REPORTS,
)
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject, private_copy
from tests.mathematics.references import Example, autograd_gradients, relative_error, token_covariances

OLD, CHECKPOINT = CHECKPOINTS
LAYERS = [f"transformer.h.{block}.{layer}" for block in (0, 1) for layer in ("attn.c_attn", "mlp.c_fc")]
BASES = [f"{CHECKPOINT}|{layer}" for layer in LAYERS]
ONE = {"checkpoints": (CHECKPOINT,)}


@pytest.fixture
def project(ekfac_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A private copy of which one checkpoint is active."""
    with private_copy(ekfac_project, tmp_path) as copied:
        yield copied.with_settings(active=ONE)


def all_scores(project: TinyProject) -> Tensor:
    """Scores [Q, N] of every pair, queries and examples in the order of their files."""
    every = project.with_settings(recipe={"top_k": "all"})
    every.update()
    stored = every.table(QUERY_SCORES, checkpoint=CHECKPOINT, query_set=QUERY_SET)
    number = pl.col("example_id").str.extract(r"-(\d+)").cast(int)
    ranked = stored.sort("query_id", "shard", number)
    return torch.from_numpy(ranked["score"].to_numpy().reshape(ranked["query_id"].n_unique(), -1).copy())


def spearman(left: Tensor, right: Tensor) -> float:
    ranks = torch.stack([x.argsort(dim=1).argsort(dim=1).double().flatten() for x in (left, right)])
    return float(torch.corrcoef(ranks)[0, 1])


def correlation(left: Tensor, right: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([left.flatten().double(), right.flatten().double()]))[0, 1])


def examples_of(project: TinyProject, which: str) -> list[Example]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(project.root / "checkpoints" / CHECKPOINT)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text)["input_ids"])

    def rows(file: Path) -> Iterator[dict[str, str]]:
        yield from (json.loads(line) for line in file.read_text().splitlines()[:12])

    if which == "queries":
        pairs = [
            (encode(r["prompt"]), encode(r["completion"])) for r in rows(project.root / f"queries/{QUERY_SET}.jsonl")
        ]
        return [(prompt + said, [-100] * len(prompt) + said) for prompt, said in pairs]
    texts = [encode(r["text"]) for k in range(len(SHARDS)) for r in rows(project.root / f"data/{k:05d}.jsonl")]
    return [(ids, ids) for ids in texts]


def ekfac_by_autograd(project: TinyProject, factor: int, damping: float, *, measured: bool = True) -> Tensor:
    """Scores from autograd's weight gradients and every token's covariance, by the whole Kronecker basis, in FP64.

    With eigenvalues that are not measured but products of the covariances' own, they are plain K-FAC's.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(project.root / "checkpoints" / CHECKPOINT)
    projections = [
        layer_projection(layer, Projection(factor=factor, seed=0))
        for layer in select_layers(model, ("*.attn.c_attn", "*.mlp.c_fc"))
    ]
    texts = examples_of(project, "texts")
    train = autograd_gradients(model, texts, projections)
    queries = autograd_gradients(model, examples_of(project, "queries"), projections)
    total = torch.zeros(len(queries[LAYERS[0]]), len(texts), dtype=torch.float64)
    for name, (inputs, outputs, tokens) in token_covariances(model, texts, projections).items():
        (a, q_in), (b, q_out) = (torch.linalg.eigh(covariance / tokens) for covariance in (inputs, outputs))
        rotated, asked = (q_in.T @ g @ q_out for g in (train[name], queries[name]))
        eigenvalues = rotated.square().mean(0) if measured else torch.outer(a, b)
        ready = asked / (eigenvalues + damping * eigenvalues.mean())
        total += ready.flatten(1) @ rotated.flatten(1).T
    return total


# --- Scores ----------------------------------------------------------------------------------------------------------


def exactly(project: TinyProject, factor: int, curvature: str) -> TinyProject:
    """The project with factors that lose nothing, bases of all examples, and damping 0.3."""
    return project.with_settings(
        recipe={
            "curvature": curvature,
            "projection_factor": factor,
            "rank": 16,
            "factor_dtype": "fp32",
            "kfac_examples": 1_000,
            "fisher_damping": 0.3,
        },
        batch={"tokens": 60, "scan_rows": 5, "gradient_mib": 1},
    )


@pytest.mark.parametrize("factor", [pytest.param(4, marks=pytest.mark.slow), 1])
def test_scores_are_those_of_plain_ekfac_in_fp64(project: TinyProject, factor: int) -> None:
    found = all_scores(exactly(project, factor, "ekfac"))
    assert relative_error(found, ekfac_by_autograd(project, factor, 0.3)) < 2e-3


def test_scores_of_the_curvature_kfac_are_those_of_plain_kfac_in_fp64(project: TinyProject) -> None:
    found = all_scores(exactly(project, 2, "kfac"))
    assert relative_error(found, ekfac_by_autograd(project, 2, 0.3, measured=False)) < 2e-3


def test_another_curvature_in_the_same_table_is_built_again_and_kept_up_to_date_by_shard(project: TinyProject) -> None:
    other = project.with_settings(recipe={"curvature": "kfac"})
    assert set(other.update()["ekfac_preconditioners"]) == set(BASES)
    assert other.figures("ekfac_preconditioners", BASES[0])["how"].startswith("built: the recipe")
    row = other.table(EKFAC_PRECONDITIONERS, checkpoint=CHECKPOINT, layer=LAYERS[0]).row(0, named=True)
    (bases,) = other.table(KFAC_BASES, checkpoint=CHECKPOINT, layer=LAYERS[0])["uri"]
    a, b = (other.lake.read_tensors(bases)[side].double() for side in ("a", "b"))
    assert row["trace"] == pytest.approx(float(a.sum() * b.sum()))
    other.edit_shard(1, 4, "an error closes the file")
    other.update()
    figures = other.figures("ekfac_preconditioners", BASES[0])
    assert (figures["how"], figures["examples"]) == ("updated: 0 shards are new, 0 gone, 1 changed", 36)
    assert other.update() == {}


def test_narrow_layers_stay_whole_where_a_largest_width_is_set(project: TinyProject) -> None:
    bounded = project.with_settings(recipe={"max_width": 40})
    assert bounded.update()["query_scores"]
    shapes = {
        row["layer"]: (row["d1"], row["d2"]) for row in bounded.table(KFAC_BASES, checkpoint=CHECKPOINT).to_dicts()
    }
    stored = StoredCheckpoint.read(bounded.lake, CHECKPOINT, bounded.settings.recipe)
    attributed = stored.load(bounded.opened.checkpoints, DeviceGroup.of("cpu")).model
    assert {p.layer.name: (min(p.layer.d_in, 40), min(p.layer.d_out, 40)) for p in attributed.projections} == shapes
    assert any(p.p_in is None and p.p_out is not None for p in attributed.projections)


@pytest.mark.slow
def test_signs_without_projection_rank_nearly_as_whole_gradients_do(project: TinyProject) -> None:
    signs = project.with_settings(recipe={"projection_factor": 1, "rank": 16, "factor_dtype": "sign"})
    assert spearman(all_scores(signs), ekfac_by_autograd(project, 1, 0.1)) > 0.75


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"kfac_labels": "model"},
        {"whitening_damping": 1.0},
        {"factor_dtype": "int4"},
        {"factor_rounds": 4},
        {"whitening_rank": 4},
        {"fisher_share": 0.5},
        {"factor_rounds": 3, "whitening_rank": 4, "fisher_share": 0.5},
    ],
    ids=str,
)
def test_every_other_choice_gives_much_the_same_scores(project: TinyProject, change: dict[str, Any]) -> None:
    before = all_scores(project)
    assert spearman(all_scores(project.with_settings(recipe=change)), before) > 0.8


def test_the_sizes_of_axes_bring_signs_nearer_to_whole_gradients_from_the_factors_that_are_stored(
    project: TinyProject,
) -> None:
    signs = project.with_settings(recipe={"factor_dtype": "sign", "rank": 4})
    exact, plain = ekfac_by_autograd(project, 2, 0.1), all_scores(signs)
    sized = signs.with_settings(recipe={"axis_sizes": True, "top_k": "all"})
    assert not {"gradient_factors", "ekfac_preconditioners"} & set(sized.update())
    assert correlation(all_scores(sized), exact) > correlation(plain, exact) + 0.01


# --- Bases -----------------------------------------------------------------------------------------------------------


def fingerprint(project: TinyProject) -> str:
    (only,) = project.table(KFAC_BASES, checkpoint=CHECKPOINT)["fingerprint"].unique()
    return str(only)


def test_bases_are_fitted_to_as_many_examples_as_asked_for_and_say_how_sure_they_are(
    ekfac_project: TinyProject,
) -> None:
    rows = ekfac_project.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert rows["layer"].to_list() == LAYERS
    assert set(rows["n_examples"]) == {20}
    assert rows["half_agreement"].is_between(0.3, 1.0).all()
    for row in rows.iter_rows(named=True):
        tensors = ekfac_project.lake.read_tensors(row["uri"])
        assert {name: tuple(t.shape) for name, t in tensors.items()} == {
            "q_in": (row["d1"], row["d1"]),
            "q_out": (row["d2"], row["d2"]),
            "a": (row["d1"],),
            "b": (row["d2"],),
        }
        for name in ("q_in", "q_out"):
            q = tensors[name].double()
            assert relative_error(q.T @ q, torch.eye(len(q))) < 1e-5


def test_new_data_leave_the_bases_frozen_until_they_are_asked_for_again(project: TinyProject) -> None:
    before = fingerprint(project)
    project.edit_shard(1, 4, "an error closes the file")
    (project.root / "data/00003.jsonl").write_text('{"id": "new", "text": "a file fails by an error"}')
    assert "kfac_bases" not in project.update()
    project.run("kfac_bases", *BASES)
    assert fingerprint(project) == before
    assert project.figures("kfac_bases", BASES[0])["how"] == "left as they are"

    project.run("kfac_bases", *BASES, config={"recompute": True})
    assert fingerprint(project) != before
    updated = project.update()
    assert updated["gradient_factors"] == {f"{CHECKPOINT}|{shard}" for shard in (*SHARDS, "docs-00003-00000")}


def test_the_same_data_give_the_same_bases_and_leave_the_factors_fresh(project: TinyProject) -> None:
    project.run("kfac_bases", *BASES, config={"recompute": True})
    assert project.update() == {}


def test_factors_without_bases_are_refused(project: TinyProject) -> None:
    project.lake.replace(KFAC_BASES, {"checkpoint": CHECKPOINT}, KFAC_BASES.columns.empty_table())
    with pytest.raises(MismatchError, match=f"'{CHECKPOINT}' has no K-FAC bases .*materialize `kfac_bases` first"):
        project.run("gradient_factors", f"{CHECKPOINT}|{SHARDS[0]}")


def test_factors_of_other_bases_are_refused_naming_both(project: TinyProject) -> None:
    before = fingerprint(project)
    project.edit_shard(1, 4, "an error closes the file")
    project.run("training_examples", SHARDS[1])
    project.run("kfac_bases", *BASES, config={"recompute": True})
    with pytest.raises(
        MismatchError, match=f"have bases {before}, but settings and checkpoint have {fingerprint(project)}"
    ):
        project.run("query_scores", f"{CHECKPOINT}|{QUERY_SET}")


def test_a_sample_of_which_too_few_can_be_used_is_refused_with_the_reasons_and_the_rows(project: TinyProject) -> None:
    before = fingerprint(project)
    tokenizer = project.opened.checkpoints.load_tokenizer(project.opened.checkpoints.get(CHECKPOINT))
    for shard in range(len(SHARDS)):
        rows = [json.dumps({"id": f"{shard}-{row}", "text": "a" * (1 + (shard == row == 0))}) for row in range(4)]
        (project.root / f"data/{shard:05d}.jsonl").write_text("\n".join(rows))
    usable = len(tokenizer("aa")["input_ids"]) > 1
    project.run("training_examples", SHARDS[0], SHARDS[-1])
    with pytest.raises(
        LorifError,
        match=rf"only {int(usable)} of 12 sampled examples can be used .*{CHECKPOINT}.*: no target token.*\(\d+\)",
    ):
        project.run("kfac_bases", *BASES, config={"recompute": True})
    rejected = project.table(REJECTED, stage="kfac_bases", part=CHECKPOINT)
    assert rejected.height == 12 - usable
    assert set(rejected["reason"].str.extract(r"^([a-z ]+):").to_list()) == {"no target token"}
    assert fingerprint(project) == before


def test_bases_are_not_fitted_where_too_many_of_the_sample_are_set_aside(project: TinyProject) -> None:
    for row in range(12):
        project.edit_shard(0, row, "x" if row < 11 else "a file ends")
    project.run("training_examples", SHARDS[0])
    with pytest.raises(SourceError, match=rf"'{CHECKPOINT}': \d+ of 36 rows are set aside so far, .*no target token"):
        project.run("kfac_bases", *BASES, config={"recompute": True})
    allowed = project.with_settings(data={"max_rejected_share": 1})
    allowed.run("kfac_bases", *BASES, config={"recompute": True})
    figures = allowed.figures("kfac_bases", BASES[0])
    assert figures["rejected_rows"] == allowed.table(REJECTED, stage="kfac_bases").height > 3.6
    assert list(figures["rejected_reasons"].values()) == [figures["rejected_rows"]]


@pytest.mark.parametrize("asset", ["kfac_bases", "ekfac_preconditioners"])
def test_the_other_curvature_has_nothing_to_do(private_project: TinyProject, asset: str) -> None:
    result = private_project.run(asset, *BASES)
    assert result.success
    assert not result.asset_materializations_for_node(asset)


def test_svd_preconditioners_have_nothing_to_do_for_ekfac(project: TinyProject) -> None:
    assert not project.run("svd_preconditioners", *BASES).asset_materializations_for_node("svd_preconditioners")


# --- Ranks from a byte budget ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codec", ["sign", *(pytest.param(name, marks=pytest.mark.slow) for name in ("int4", "int8", "bf16"))]
)
def test_ranks_spend_the_byte_budget_and_factors_have_them(project: TinyProject, codec: str) -> None:
    budget = 1_200 if codec == "bf16" else 400
    budgeted = project.with_settings(recipe={"bytes_per_example": budget, "factor_dtype": codec})
    budgeted.update()
    rows = budgeted.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert rows["bytes_per_example"].sum() <= budget
    # What is left would not pay for one more component anywhere, or every layer is at its full rank.
    cheapest = (rows["bytes_per_example"] / rows["rank"]).min()
    assert budget - rows["bytes_per_example"].sum() < cheapest or rows["rank"].to_list() == [8] * 4
    assert budgeted.figures("gradient_factors", f"{CHECKPOINT}|{SHARDS[0]}")["bytes_per_example"] == sum(
        rows["bytes_per_example"]
    )
    first, *_, last = (budgeted.recorded("kfac_bases", key).metadata for key in BASES)
    assert "ranks" not in first
    shown = last["ranks"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert [record.data["rank"] for record in shown.records] == rows["rank"].to_list()


def test_left_to_the_model_no_layer_has_its_full_rank_and_the_bytes_are_those_of_the_fitted_recipe(
    project: TinyProject,
) -> None:
    fitting = project.with_settings(recipe={"max_width": "auto", "bytes_per_example": "auto", "factor_dtype": "sign"})
    fitting.update()
    rows = fitting.table(KFAC_BASES, checkpoint=CHECKPOINT)
    # Narrow sides stay whole: 16 numbers wide, of 16 x 48 and 16 x 64.
    assert {(row["d1"], row["d2"]) for row in rows.iter_rows(named=True)} == {(16, 48), (16, 64)}
    assert rows["rank"].max() < 16
    assert rows["bytes_per_example"].sum() == 15 * 2 * (12 + 14)
    again = fitting.with_settings(recipe={"top_k": 4})
    assert not again.stale("kfac_bases")
    assert not again.stale("gradient_factors")
    assert project.with_settings(recipe={"max_width": 64, "bytes_per_example": 780}).stale("checkpoints")


def test_a_width_that_was_measured_is_frozen_with_the_bases_and_all_that_follows_has_it(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"max_factor": 64, "bytes_per_example": 200, "factor_dtype": "sign"}
    trials = (WidthTrial(8, 100, 0.75), WidthTrial(512, 100, 0.5))
    monkeypatch.setattr(
        "lorif_assets.attribution.fitting.fit_stored_bases.at_measured_width",
        lambda model, *_: (model.at_width(8), trials),
    )
    measured = project.with_settings(recipe={"max_width": "auto", **shared})
    measured.update()
    rows = measured.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert {(row["d1"], row["d2"], row["max_width"]) for row in rows.iter_rows(named=True)} == {(8, 8, 8)}
    assert set(rows["expected_agreement"]) == {0.75}
    figures = measured.figures("gradient_factors", f"{CHECKPOINT}|{SHARDS[0]}")
    assert figures["bytes_per_example"] == rows["bytes_per_example"].sum() == rows["rank"].sum() * (4 + 1 + 1)
    shown = measured.recorded("kfac_bases", BASES[0]).metadata["widths"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert [record.data["largest width"] for record in shown.records] == [8, 512]
    # Scores are those of a recipe with that width by hand, and nothing is out of date.
    assert not measured.update()
    scores = measured.table(QUERY_SCORES, checkpoint=CHECKPOINT, query_set=QUERY_SET)
    by_hand = project.with_settings(recipe={"max_width": 8, **shared})
    by_hand.update()
    expected = by_hand.table(QUERY_SCORES, checkpoint=CHECKPOINT, query_set=QUERY_SET)
    keys = ["query_id", "side", "rank"]
    assert scores.sort(keys)["score"].to_list() == pytest.approx(expected.sort(keys)["score"].to_list(), rel=1e-5)


def test_the_share_of_energy_kept_grows_with_the_rank_to_all_of_it(project: TinyProject) -> None:
    kept = []
    for rank in (1, 3, 16):
        changed = project.with_settings(recipe={"rank": rank})
        changed.update()
        kept.append(changed.table(KFAC_BASES, checkpoint=CHECKPOINT)["kept_energy"])
    assert (kept[0] < kept[1]).all()
    assert kept[2].to_list() == pytest.approx([1.0] * len(LAYERS), abs=1e-4)


def test_the_report_shows_each_layers_rank_and_kept_energy(project: TinyProject) -> None:
    project.run("attribution_report", f"{CHECKPOINT}|{QUERY_SET}")
    (where,) = project.table(REPORTS, checkpoint=CHECKPOINT, query_set=QUERY_SET)["uri"]
    page = Path(where).read_text()
    rows = project.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert "Kept energy" in page
    assert "Captured energy" not in page
    for row in rows.iter_rows(named=True):
        shown = page.partition(f"<bdi>{row['layer']}</bdi>")[2].partition("</tr>")[0]
        assert f">{row['rank']}</td>" in shown
        assert f"{100 * row['kept_energy']:.0f}%" in shown


def test_a_budget_below_one_component_per_layer_is_an_error_that_says_what_it_takes(project: TinyProject) -> None:
    poor = project.with_settings(recipe={"bytes_per_example": 10, "factor_dtype": "sign"})
    with pytest.raises(
        LorifError, match=r"`recipe\.bytes_per_example` is 10, but one sign component .* takes \d+ bytes"
    ):
        poor.update()


# --- Sums by shard ---------------------------------------------------------------------------------------------------


def rebuilt(project: TinyProject, folder: Path, **recipe: Any) -> TinyProject:
    """A copy with the same bases, of which factors and what follows are computed from nothing."""
    import shutil

    shutil.copytree(project.root, folder, ignore=shutil.ignore_patterns("dagster"))
    copied = TinyProject.open(folder, dg.DagsterInstance.ephemeral()).with_settings(active=ONE, recipe=recipe)
    for table in ("gradient_factors", "ekfac_preconditioners", "query_scores", "query_summaries"):
        shutil.rmtree(folder / "lake" / table)
    copied.update()
    return copied


def eigenvalues(project: TinyProject) -> list[float]:
    rows = project.table(EKFAC_PRECONDITIONERS, checkpoint=CHECKPOINT).sort("layer")
    return rows["eigenvalues"].explode().to_list()


def test_edited_new_and_withdrawn_shards_end_where_a_rebuild_does(project: TinyProject, tmp_path: Path) -> None:
    project.edit_shard(1, 4, "an error closes the file")
    (project.root / "data/00003.jsonl").write_text('{"id": "new-0", "text": "a file fails by an error"}')
    project.update()
    (project.root / "data/00000.jsonl").unlink()
    gone = removed_shards(project.lake, discover(project.opened))
    withdraw(project.lake, project.instance, gone)
    updated = project.update()
    assert "gradient_factors" not in updated
    figures = project.figures("ekfac_preconditioners", BASES[0])
    assert figures["how"] == "updated: 0 shards are new, 1 gone, 0 changed"
    assert (figures["shards_read"], figures["examples"]) == (1, 25)

    fresh = rebuilt(project, tmp_path / "fresh")
    assert np.allclose(eigenvalues(project), eigenvalues(fresh), rtol=1e-5)
    assert fresh.figures("ekfac_preconditioners", BASES[0])["how"].startswith("built")
    assert relative_error(all_scores(project), all_scores(fresh)) < 1e-4


def test_sums_over_a_sample_end_where_a_rebuild_does_and_say_how_many_they_are_over(
    project: TinyProject, tmp_path: Path
) -> None:
    sampled = project.with_settings(recipe={"fisher_share": 0.5})
    sampled.update()
    sampled.edit_shard(1, 4, "an error closes the file")
    (project.root / "data/00003.jsonl").write_text('{"id": "new-0", "text": "a file fails by an error"}')
    sampled.update()
    assert sampled.figures("ekfac_preconditioners", BASES[0])["how"].startswith("updated")
    fresh = rebuilt(project, tmp_path / "fresh", fisher_share=0.5)
    assert np.allclose(eigenvalues(sampled), eigenvalues(fresh), rtol=1e-5)
    (row, *_) = sampled.table(EKFAC_PRECONDITIONERS, checkpoint=CHECKPOINT).to_dicts()
    over = int(project.lake.read_tensors(row["state_uri"])["squared"])
    assert 0 < over < row["n_examples"] == 37


def test_sums_are_built_again_where_a_replaced_shards_are_gone(project: TinyProject) -> None:
    import shutil

    folder = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[1])["fisher"][0]
    project.edit_shard(1, 4, "an error closes the file")
    shutil.rmtree(project.root / "lake" / folder)
    project.update()
    assert (
        project.figures("ekfac_preconditioners", BASES[0])["how"]
        == "built: the sums or those of replaced shards are gone"
    )


def test_another_damping_reads_no_shard(project: TinyProject) -> None:
    project.with_settings(recipe={"fisher_damping": 3.0}).update()
    assert project.figures("ekfac_preconditioners", BASES[0])["shards_read"] == 0
    rows = project.table(EKFAC_PRECONDITIONERS, checkpoint=CHECKPOINT)
    expected = 3.0 * rows["trace"] / (rows["d1"] * rows["d2"])
    assert np.allclose(rows["damping"].to_numpy(), expected.to_numpy())


def test_an_example_that_is_set_aside_is_in_no_sum(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest example comes first in its batch: its gradient is spoilt in the layer that backward reaches last."""
    stream = GradientCollector.stream
    longest: list[int] = []

    def damaged(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> Tensor:
        ids = batch.input_ids[0].tolist()
        longest.extend(ids if not longest else [])

        def spoiling(layer: str, rows: slice, gradients: Tensor) -> None:
            if layer == LAYERS[0] and rows.start == 0 and ids == longest:
                gradients[0, 0, 0] = float("nan")
            sink(layer, rows, gradients)

        return stream(self, batch, spoiling, max_numbers)

    key = f"{CHECKPOINT}|{SHARDS[0]}"
    with monkeypatch.context() as patch:
        patch.setattr(GradientCollector, "stream", damaged)
        project.run("gradient_factors", key, config={"recompute": True})
    (rejected,) = project.table(REJECTED, stage="gradient_factors").to_dicts()
    stored = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=SHARDS[0])
    assert rejected["example_id"] not in stored["example_id"].to_list()
    with_it = squares(project, SHARDS[0])

    lines = (project.root / "data/00000.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["id"] != rejected["example_id"]]
    (project.root / "data/00000.jsonl").write_text("\n".join(kept))
    project.run("training_examples", SHARDS[0])
    project.run("gradient_factors", key)
    for layer, expected in squares(project, SHARDS[0]).items():
        assert relative_error(with_it[layer], expected) < 1e-5


def squares(project: TinyProject, shard: str) -> dict[str, Tensor]:
    folder = project.table(GRADIENT_FACTORS, checkpoint=CHECKPOINT, shard=shard)["fisher"][0]
    return {layer: project.lake.read_tensors(f"{folder}/{layer}.safetensors")["squares"] for layer in LAYERS}


def test_a_fresh_project_has_a_row_of_every_layer_and_no_svd(ekfac_project: TinyProject) -> None:
    from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS

    def layers(schema: TableSchema) -> list[str]:
        return sorted(ekfac_project.table(schema, checkpoint=CHECKPOINT)["layer"])

    assert layers(EKFAC_PRECONDITIONERS) == sorted(LAYERS)
    assert layers(SVD_PRECONDITIONERS) == []
    record = checkpoint_record(ekfac_project.lake, CHECKPOINT, ekfac_project.settings.recipe)
    assert record.bases_fingerprint == fingerprint(ekfac_project)
