"""Influcoder's assets on the tiny project: what is drawn, trained, embedded, scored and renewed, and when."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from lorif_assets.api.status import project_status
from lorif_assets.assets import influence_targets
from lorif_assets.attribution.stored.versions import encoder_version
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.automation.withdrawal import withdraw
from lorif_assets.checks import held_out_texts_are_apart
from lorif_assets.demo.encoder import DemoEncoderConfig, make_encoder
from lorif_assets.influcoder.sampling import SampledText, draw_sample
from lorif_assets.lake.attribution_tables import QUERY_SCORES, RELATIVE_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import (
    INFLUCODER_AGREEMENT,
    INFLUCODER_ENCODERS,
    INFLUCODER_SCORES,
    INFLUENCE_EMBEDDINGS,
    INFLUENCE_TARGETS,
    RECALL_CURVES,
)
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, ROWS_PER_SHARD, SHARDS, TinyProject

FIRST, SECOND = CHECKPOINTS
GROUP = {
    "influence_targets",
    "influcoder_encoder",
    "influence_embeddings",
    "influcoder_scores",
    "influcoder_agreement",
    "recall_curves",
}
SECTION: dict[str, Any] = {
    "enabled": True,
    "encoder": "encoder",
    "encoder_length": 32,
    "sketch_dim": 256,
    "lora_rank": 4,
    "anchors": 6,
    "pool": 8,
    "held_out_anchors": 3,
    "held_out_pool": 4,
    "epochs": 1,
    "learning_rate": 1e-3,
    "evaluation_seeds": [0, 1],
}


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory, tiny_project: TinyProject) -> Path:
    """A small encoder with the tiny project's tokenizer."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(tiny_project.root / "checkpoints" / FIRST)
    texts = tiny_project.table(TRAINING_EXAMPLES)["text"].to_list()
    make_encoder(texts, tokenizer, folder, DemoEncoderConfig(width=16))
    return folder


@pytest.fixture(scope="module")
def built(
    tiny_project: TinyProject, encoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TinyProject]:
    """The project with the first checkpoint's group up to date. Shared by this module's tests: read it only."""
    root = tmp_path_factory.mktemp("influcoder") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster"))
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject.open(root, instance).with_settings(
            influcoder={**SECTION, "encoder": str(encoder_folder)}, active={"checkpoints": [FIRST]}
        )
        assert set(project.update()) == GROUP
        yield project


@pytest.fixture
def project(built: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of it for one test alone."""
    root = tmp_path / "project"
    shutil.copytree(built.root, root)
    with dg.DagsterInstance.ephemeral() as instance:
        copy = TinyProject.open(root, instance).with_settings(
            influcoder=built.settings.influcoder.model_dump(), active={"checkpoints": [FIRST]}
        )
        copy.register_partitions()
        yield copy


def test_nobody_pays_for_influcoder_unasked(tiny_project: TinyProject) -> None:
    assert not any(tiny_project.stale(asset) for asset in GROUP)


def test_the_group_is_brought_up_to_date_once(built: TinyProject) -> None:
    assert not any(built.stale(asset) for asset in GROUP)


def test_targets_are_cosines_between_disjoint_texts(built: TinyProject) -> None:
    rows = built.table(INFLUENCE_TARGETS, checkpoint=FIRST)
    counts = {(role, split): n for role, split, n in rows.group_by("role", "split").len().iter_rows()}
    assert set(counts) == {(role, split) for role in ("anchor", "pool") for split in ("distil", "held_out")}
    assert rows["content_hash"].n_unique() == rows.height
    anchors = rows.filter(pl.col("role") == "anchor")
    assert (anchors["targets"].list.len() == rows.height - anchors.height).all()
    assert anchors["targets"].explode().abs().max() <= 1.0001


def test_a_text_keeps_its_role_and_split_when_the_data_grows(project: TinyProject) -> None:

    def purposes() -> dict[str, tuple[str, str]]:
        sampled = draw_sample(project.lake, project.settings.influcoder, str)
        return {one.row["content_hash"]: (one.role, one.split) for one in sampled}

    all_of_them = purposes()
    shard = SHARDS[-1]
    fewer = project.table(TRAINING_EXAMPLES).filter(pl.col("shard") == shard)
    project.lake.replace(TRAINING_EXAMPLES, {"shard": shard}, fewer.head(0).to_arrow())
    before = purposes()
    both = before.keys() & all_of_them.keys()
    assert len(both) > 4
    assert {content: before[content] for content in both} == {content: all_of_them[content] for content in both}


def test_an_edited_shard_is_embedded_where_it_changed_and_nothing_is_trained(project: TinyProject) -> None:
    sampled = set(project.table(INFLUENCE_TARGETS, checkpoint=FIRST).select("source", "example_id").iter_rows())
    row = next(row for row in range(ROWS_PER_SHARD) if (SHARDS[0], f"doc0-{row}") not in sampled)
    shard = {"checkpoint": FIRST, "shard": SHARDS[0]}
    before = project.table(INFLUENCE_EMBEDDINGS, **shard).sort("row")["embedding"].to_list()
    project.edit_shard(0, row, "an entirely different sentence about nothing that was said before")
    project.run("training_examples", SHARDS[0])
    assert not project.stale("influence_targets")
    assert not project.stale("influcoder_encoder")
    assert set(project.stale("influence_embeddings")) == {f"{FIRST}|{SHARDS[0]}"}
    assert set(project.stale("influcoder_scores")) == {f"{FIRST}|{QUERY_SET}"}
    project.run("influence_embeddings", f"{FIRST}|{SHARDS[0]}")
    assert project.figures("influence_embeddings", f"{FIRST}|{SHARDS[0]}")["newly_embedded"] == 1
    after = project.table(INFLUENCE_EMBEDDINGS, **shard).sort("row")["embedding"].to_list()
    assert [i for i, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1]] == [row]
    assert not project.stale("influence_embeddings")


def test_an_edited_sampled_text_asks_for_other_targets_and_then_another_encoder_and_embeddings(
    project: TinyProject,
) -> None:
    source, name = project.table(INFLUENCE_TARGETS, checkpoint=FIRST).select("source", "example_id").row(0)
    project.edit_shard(SHARDS.index(source), int(name.rpartition("-")[2]), "another text in the place of a sampled one")
    project.run("training_examples", source)
    assert project.stale("influence_targets")[FIRST].reason == "a sampled text was edited or removed"
    project.run("influence_targets", FIRST)
    assert not project.stale("influence_targets")
    assert set(project.stale("influcoder_encoder")) == {FIRST}
    project.run("influcoder_encoder", FIRST)
    assert set(project.stale("influence_embeddings")) == {f"{FIRST}|{shard}" for shard in SHARDS}


def test_sampled_texts_that_the_tokenizer_cannot_use_are_counted_by_their_ids(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = influence_targets.draw_sample

    def draw_with_one_word(*arguments: Any) -> list[SampledText]:
        *others, last = draw(*arguments)
        return [*others, replace(last, row={**last.row, "text": "a"})]

    monkeypatch.setattr(influence_targets, "draw_sample", draw_with_one_word)
    project.run("influence_targets", FIRST)
    (rejected,) = project.table(REJECTED, stage="influence_targets", part=FIRST).iter_rows(named=True)
    assert rejected["example_id"].startswith("doc")
    assert "no target token" in rejected["reason"]
    figures = project.figures("influence_targets", FIRST)
    assert (figures["left_out"], figures["rejected_rows"]) == (1, 1)
    assert project_status(project.opened).rejected["influence_targets"] == {rejected["reason"]: 1}


def test_another_way_of_training_leaves_the_targets(built: TinyProject) -> None:
    retrained = built.with_settings(influcoder={"epochs": 2})
    assert not retrained.stale("influence_targets")
    assert set(retrained.stale("influcoder_encoder")) == {FIRST}


def test_data_that_outgrew_the_sample_asks_for_another(built: TinyProject) -> None:
    rows = built.table(INFLUENCE_TARGETS, checkpoint=FIRST)
    assert rows["corpus_size"].unique().to_list() == [len(SHARDS) * ROWS_PER_SHARD]
    halved = built.table(INFLUENCE_TARGETS).with_columns(corpus_size=pl.col("corpus_size") // 2)
    built.lake.replace(INFLUENCE_TARGETS, {"checkpoint": FIRST}, halved.to_arrow())
    assert built.stale("influence_targets")[FIRST].reason == "the data outgrew the sample"
    built.lake.replace(INFLUENCE_TARGETS, {"checkpoint": FIRST}, rows.to_arrow())


def test_a_seed_gives_the_same_encoder_again(project: TinyProject) -> None:
    (first,) = project.table(INFLUCODER_ENCODERS)["encoder_hash"]
    project.run("influcoder_encoder", FIRST)
    assert project.table(INFLUCODER_ENCODERS)["encoder_hash"].to_list() == [first]


def test_other_files_of_the_encoder_that_training_starts_from_ask_for_training(
    built: TinyProject, encoder_folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(encoder_folder, tmp_path / "encoder"))
    moved = built.with_settings(influcoder={**SECTION, "encoder": str(other)})
    rows = built.table(INFLUCODER_ENCODERS)
    hashes = {"recipe_hash": moved.settings.influcoder.distillation_hash(moved.settings.recipe)}
    targets = built.table(INFLUENCE_TARGETS)["computed_from"][0]
    hashes["computed_from"] = encoder_version(hashes["recipe_hash"], targets)
    moved.lake.replace(
        INFLUCODER_ENCODERS,
        {"checkpoint": FIRST},
        rows.with_columns(**{k: pl.lit(v) for k, v in hashes.items()}).to_arrow(),
    )
    try:
        # A copy of the same files is the same encoder.
        assert not moved.stale("influcoder_encoder")
        (weights,) = other.rglob("*.safetensors")
        weights.write_bytes(bytes([*weights.read_bytes()[:-1], 7]))
        assert moved.stale("influcoder_encoder")[FIRST].reason == "the files of `influcoder.encoder` changed"
        # Of what an earlier version trained, it is not known.
        unknown = pl.lit(None, dtype=pl.String)
        moved.lake.replace(
            INFLUCODER_ENCODERS,
            {"checkpoint": FIRST},
            moved.table(INFLUCODER_ENCODERS).with_columns(base_version=unknown).to_arrow(),
        )
        assert not moved.stale("influcoder_encoder")
    finally:
        built.lake.replace(INFLUCODER_ENCODERS, {"checkpoint": FIRST}, rows.to_arrow())


def test_a_new_checkpoint_goes_on_from_the_encoder_before(project: TinyProject) -> None:
    both = project.with_settings(active={"checkpoints": "all"})
    assert set(both.stale("influence_targets")) == {SECOND}
    both.run("influence_targets", SECOND)
    both.run("influcoder_encoder", SECOND)
    rows = project.table(INFLUCODER_ENCODERS).sort("checkpoint")
    assert rows["started_from"].to_list() == [None, FIRST]
    assert rows["encoder_hash"].n_unique() == 2


def test_scores_are_the_cosines_of_embeddings_in_the_shape_of_query_scores(built: TinyProject) -> None:
    rows = built.table(INFLUCODER_SCORES, checkpoint=FIRST)
    assert rows.schema == built.table(QUERY_SCORES).schema
    assert set(rows["side"]) == {"highest", "lowest"}
    best = rows.filter((pl.col("query_id") == "q0") & (pl.col("side") == "highest")).sort("rank")
    assert best["score"].is_sorted(descending=True)
    assert best["score"].abs().max() <= 1.0001


def test_the_agreement_lists_the_served_encoder_and_for_each_seed_a_trained_and_an_untrained_one(
    built: TinyProject,
) -> None:
    rows = built.table(INFLUCODER_AGREEMENT, checkpoint=FIRST)
    assert sorted(rows.select("encoder", "seed").iter_rows()) == [
        ("served", 0),
        ("trained", 0),
        ("trained", 1),
        ("untrained", 0),
        ("untrained", 1),
    ]
    assert rows["per_anchor"].is_between(-1, 1).all()
    assert rows["ndcg_at_20"].is_between(0, 1).all()
    assert (rows.filter(pl.col("encoder") == "trained")["training_seconds"] > 0).all()


def test_recall_rises_with_the_candidates_to_all_of_them(built: TinyProject) -> None:
    rows = built.table(RECALL_CURVES, checkpoint=FIRST).filter(pl.col("k") == 10).sort("candidates")
    assert rows["recall"].is_sorted()
    assert rows["candidates"].max() == rows["n_examples"].max() / 2


def test_a_withdrawn_shard_takes_its_embeddings_along(project: TinyProject) -> None:
    withdraw(project.lake, project.instance, [SHARDS[1]])
    assert set(project.table(INFLUENCE_EMBEDDINGS)["shard"]) == {SHARDS[0], SHARDS[2]}


# --- The cascade ---


def _recalling(project: TinyProject, **recipe: Any) -> TinyProject:
    return project.with_settings(recipe={"recall": "influcoder", "recall_agreement": -1.0, **recipe})


def test_with_every_example_proposed_the_cascade_gives_the_scores_of_a_full_scan(project: TinyProject) -> None:
    rankings = QUERY_SCORES, RELATIVE_SCORES
    full = [project.table(table, checkpoint=FIRST, query_set=QUERY_SET) for table in rankings]
    cascade = _recalling(project, candidates=1_000)
    assert set(cascade.stale("query_scores")) == {f"{FIRST}|{QUERY_SET}"}
    cascade.run("query_scores", f"{FIRST}|{QUERY_SET}")
    key = ["query_id", "side", "rank"]
    for table, before in zip(rankings, full, strict=True):
        left, right = before.sort(key), project.table(table, checkpoint=FIRST, query_set=QUERY_SET).sort(key)
        assert left["example_id"].to_list() == right["example_id"].to_list()
        for column in ("score", "relative_score"):
            assert left[column].to_list() == pytest.approx(right[column].to_list(), rel=1e-4)
    assert not cascade.stale("query_scores")
    figures = project.figures("query_scores", f"{FIRST}|{QUERY_SET}")
    assert figures["recall_fell_back"] is False
    assert figures["examples_scanned"] == len(SHARDS) * ROWS_PER_SHARD


def test_the_cascade_scores_only_what_the_encoder_proposes(project: TinyProject) -> None:
    cascade = _recalling(project, candidates=1, top_k=2)
    cascade.run("query_scores", f"{FIRST}|{QUERY_SET}")
    ends = project.table(INFLUCODER_SCORES, checkpoint=FIRST).filter(pl.col("rank") == 1)
    scored = project.table(QUERY_SCORES, checkpoint=FIRST, query_set=QUERY_SET)
    assert set(scored["example_id"]) <= set(ends["example_id"])
    assert project.figures("query_scores", f"{FIRST}|{QUERY_SET}")["examples_scanned"] == ends["example_id"].n_unique()


def test_an_encoder_that_disagrees_with_exact_scores_is_not_asked(project: TinyProject) -> None:
    full = project.table(QUERY_SCORES, checkpoint=FIRST, query_set=QUERY_SET)
    cascade = _recalling(project, candidates=1, recall_agreement=0.999)
    cascade.run("query_scores", f"{FIRST}|{QUERY_SET}")
    found = project.table(QUERY_SCORES, checkpoint=FIRST, query_set=QUERY_SET)
    key = ["query_id", "side", "rank"]
    assert found.sort(key)["example_id"].to_list() == full.sort(key)["example_id"].to_list()
    figures = project.figures("query_scores", f"{FIRST}|{QUERY_SET}")
    assert figures["recall_fell_back"] is True
    assert "all examples were scored" in figures["recall"]


def test_the_teacher_lorif_ranks_the_pool_for_every_anchor(project: TinyProject) -> None:
    project.with_settings(influcoder={"teacher": "lorif"}).run("influence_targets", FIRST)
    rows = project.table(INFLUENCE_TARGETS, checkpoint=FIRST)
    pool = rows.filter(pl.col("role") == "pool").height
    for targets in rows.filter(pl.col("role") == "anchor")["targets"].to_list():
        assert sorted(targets) == pytest.approx([rank / (pool - 1) for rank in range(pool)])


# --- Heads ---


def test_with_heads_queries_and_examples_are_embedded_apart_everywhere(project: TinyProject) -> None:

    from lorif_assets.influcoder.sampling import Role
    from lorif_assets.influcoder.stored import encoder_row
    from lorif_assets.influcoder.text_views import anchor_text, pool_text

    headed = project.with_settings(influcoder={"heads": True, "learning_rate": 0.05, "evaluation_seeds": [0]})
    assert not headed.stale("influence_targets")
    assert set(headed.stale("influcoder_encoder")) == {FIRST}
    assert headed.update().keys() == GROUP - {"influence_targets"}
    (row,) = headed.table(INFLUCODER_ENCODERS, checkpoint=FIRST).to_dicts()
    encoder = encoder_row(row).load(headed.lake, headed.settings.influcoder, DeviceGroup.of("cpu").first)
    scored = headed.table(INFLUCODER_SCORES, checkpoint=FIRST).row(0, named=True)
    query = headed.table(QUERY_EXAMPLES, query_id=scored["query_id"]).row(0, named=True)
    example = headed.table(TRAINING_EXAMPLES, example_id=scored["example_id"]).row(0, named=True)
    texts = [anchor_text(query, str), pool_text(example, str)]
    left, right = (encoder.embed([text], role)[0] for text, role in zip(texts, (Role.ANCHOR, Role.POOL), strict=True))
    assert float(left @ right) == pytest.approx(scored["score"], abs=1e-5)
    swapped = encoder.embed(texts[:1], Role.POOL)[0] @ encoder.embed(texts[1:], Role.ANCHOR)[0]
    assert float(swapped) != pytest.approx(scored["score"], abs=1e-4)


# --- Approximate search ---


def _approximate(project: TinyProject, **recipe: Any) -> TinyProject:
    return project.with_settings(influcoder={"exact_up_to": 1, "probed_share": 1.0}, recipe=recipe)


def test_beyond_the_threshold_scores_come_from_an_index_which_is_built_once(project: TinyProject) -> None:
    key = f"{FIRST}|{QUERY_SET}"
    exact = project.table(INFLUCODER_SCORES, checkpoint=FIRST).sort("query_id", "side", "rank")
    approximate = _approximate(project)
    built = []
    for _ in range(2):
        approximate.run("influcoder_scores", key)
        figures = project.figures("influcoder_scores", key)
        assert figures["search"] == "approximate"
        assert figures["search_recall"] == pytest.approx(1.0)
        built.append(figures["search_seconds_building"] > 0)
        rows = project.table(INFLUCODER_SCORES, checkpoint=FIRST).sort("query_id", "side", "rank")
        # Every cell was probed; what is found has its exact cosine.
        assert rows["score"].to_list() == pytest.approx(exact["score"].to_list(), abs=1e-6)
    assert built == [True, False]


def test_another_state_of_the_data_has_another_index_which_takes_the_place_of_the_first(project: TinyProject) -> None:
    key, folder = f"{FIRST}|{QUERY_SET}", project.root / "lake" / "embedding_indexes" / FIRST
    approximate = _approximate(project)
    approximate.run("influcoder_scores", key)
    (first,) = folder.iterdir()
    project.edit_shard(0, 0, "an entirely different sentence about nothing that was said before")
    project.run("training_examples", SHARDS[0])
    approximate.run("influence_embeddings", f"{FIRST}|{SHARDS[0]}")
    approximate.run("influcoder_scores", key)
    (second,) = folder.iterdir()
    assert first.name != second.name


def test_the_cascade_proposes_by_the_index_what_it_proposes_exactly(project: TinyProject) -> None:
    key = f"{FIRST}|{QUERY_SET}"
    tables, agreements = [], []
    for cascade in (_recalling(project, candidates=4), _recalling(_approximate(project), candidates=4)):
        cascade.run("query_scores", key)
        rows = project.table(QUERY_SCORES, checkpoint=FIRST, query_set=QUERY_SET)
        tables.append(rows.sort("query_id", "side", "rank")["example_id"].to_list())
        figures = project.figures("query_scores", key)
        agreements.append(figures["recall_agreement"])
    assert figures["recall_search"] == "approximate"
    assert figures["recall_search_recall"] == pytest.approx(1.0)
    assert tables[0] == tables[1]
    assert agreements[0] == pytest.approx(agreements[1])


def test_up_to_the_threshold_search_is_exact_and_needs_no_faiss(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise AssertionError("faiss was asked for")

    monkeypatch.setattr("lorif_assets.influcoder.nearest.require_faiss", refuse)
    examples = len(SHARDS) * ROWS_PER_SHARD
    project.with_settings(influcoder={"exact_up_to": examples}).run("influcoder_scores", f"{FIRST}|{QUERY_SET}")
    assert project.figures("influcoder_scores", f"{FIRST}|{QUERY_SET}")["search"] == "exact"


# --- The audit ---


def test_the_audit_passes_on_what_was_drawn_and_fails_on_a_text_that_is_in_both_splits(project: TinyProject) -> None:
    def audit() -> Any:
        return held_out_texts_are_apart(settings=project.settings, lake=project.lake)

    assert audit().passed
    rows = project.table(INFLUENCE_TARGETS, checkpoint=FIRST)
    pool = pl.col("role") == "pool"
    leaked = rows.filter(pool & (pl.col("split") == "distil"))["text"][0]
    held_out = pool & (pl.col("split") == "held_out")
    position = rows.filter(held_out)["position"][0]
    text = pl.when(held_out & (pl.col("position") == position)).then(pl.lit(leaked.upper())).otherwise("text")
    project.lake.replace(INFLUENCE_TARGETS, {"checkpoint": FIRST}, rows.with_columns(text=text).to_arrow())
    result = audit()
    assert not result.passed
    assert "is held out and" in result.description


# --- What runs when, and what is tracked ---


def test_each_asset_of_the_group_waits_for_the_one_before(project: TinyProject) -> None:
    def ready() -> dict[str, set[str]]:
        found = {asset: set(stale) for asset, stale in ready_partitions(project.freshness) if stale}
        return {asset: keys for asset, keys in found.items() if asset in GROUP}

    assert ready() == {}
    project.lake.replace(INFLUENCE_TARGETS, {"checkpoint": FIRST}, project.table(INFLUENCE_TARGETS).head(0).to_arrow())
    assert ready() == {"influence_targets": {FIRST}}
    retrained = project.with_settings(influcoder={"epochs": 2})
    retrained.run("influence_targets", FIRST)
    assert {asset for asset, stale in ready_partitions(retrained.freshness) if stale} == {"influcoder_encoder"}
    retrained.run("influcoder_encoder", FIRST)
    after = {asset for asset, stale in ready_partitions(retrained.freshness) if stale}
    assert after == {"influence_embeddings", "influcoder_agreement"}


def test_mlflow_has_the_loss_curve_and_the_encoder_as_a_model(project: TinyProject, mlflow_uri: str) -> None:
    import mlflow
    from mlflow.tracking import MlflowClient

    tracked = project.with_settings(tracking={"uri": mlflow_uri, "experiment": "influcoder"})
    tracked.run("influcoder_encoder", FIRST)
    client = MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("influcoder")
    assert experiment
    (run,) = [
        run
        for run in client.search_runs([experiment.experiment_id])
        if run.info.run_name == f"influcoder_encoder {FIRST}"
    ]
    steps = project.table(INFLUCODER_ENCODERS)["steps"][0]
    assert len(client.get_metric_history(run.info.run_id, "loss")) == steps
    folder = client.download_artifacts(run.info.run_id, "encoder", str(project.root))
    logged = mlflow.sentence_transformers.load_model(folder)
    (name, embedding) = project.table(INFLUENCE_EMBEDDINGS, checkpoint=FIRST).select("example_id", "embedding").row(0)
    text = project.table(TRAINING_EXAMPLES, example_id=name)["text"][0]
    assert logged.encode([text], normalize_embeddings=True)[0].tolist() == pytest.approx(embedding, abs=1e-4)


def test_as_a_method_of_the_evaluation_it_scores_every_pair_as_its_table_does(built: TinyProject) -> None:

    from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
    from lorif_assets.evaluation.methods.influcoder import influcoder_scores
    from lorif_assets.evaluation.methods.inputs import MethodInputs

    models = built.opened.checkpoints
    stored = StoredCheckpoint.read(built.lake, FIRST, built.settings.recipe)
    attributed = stored.load(models, DeviceGroup.of("cpu")).model
    inputs = MethodInputs.load(built.opened, attributed, [QUERY_SET])
    scores = influcoder_scores(inputs)["influcoder"].scores
    listed = built.table(INFLUCODER_SCORES, checkpoint=FIRST, query_set=QUERY_SET)
    for row in listed.to_dicts():
        at = inputs.queries.ids.index(row["query_id"]), inputs.examples.ids.index(row["example_id"])
        assert scores[at] == pytest.approx(row["score"], abs=1e-5)
