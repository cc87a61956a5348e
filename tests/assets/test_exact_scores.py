"""exact_scores: leading examples ranked again by whole gradients, kept only where the settings ask for it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import lorif_assets
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import EXACT_SCORES, QUERY_SCORES, REPORTS
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject, private_copy

CHECKPOINT = CHECKPOINTS[-1]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}
LAYERS = [f"transformer.h.{n}.{name}" for n in (0, 1) for name in ("attn.c_attn", "mlp.c_fc")]


def asking(project: TinyProject, **fields: object) -> TinyProject:
    return project.with_settings(
        exact_scores={"enabled": True, "first": 3, **fields}, active={"checkpoints": (CHECKPOINT,)}
    )


def gradients_by_autograd(project: TinyProject, texts: list[str], prompts: list[str]) -> list[dict[str, torch.Tensor]]:
    """Whole gradients [I, O] of single texts in FP64; a prompt carries no loss."""
    checkpoints = project.opened.checkpoints
    files = checkpoints.get(CHECKPOINT)
    model = checkpoints.load_model(files, "float32", DeviceGroup.of("cpu")).double().eval()
    tokenizer = checkpoints.load_tokenizer(files)
    weights = [model.get_submodule(name).weight.requires_grad_(True) for name in LAYERS]
    found = []
    for text, prompt in zip(texts, prompts, strict=True):
        ids = tokenizer(prompt + text)["input_ids"][:48]
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        first = max(1, len(tokenizer(prompt)["input_ids"]))
        loss = -sum(torch.log_softmax(logits[t - 1], 0)[ids[t]] for t in range(first, len(ids)))
        found.append(dict(zip(LAYERS, torch.autograd.grad(loss, weights), strict=True)))
    return found


def test_they_are_not_kept_unless_asked_for(tiny_project: TinyProject) -> None:
    assert not tiny_project.stale("exact_scores")
    assert tiny_project.table(EXACT_SCORES).is_empty()


def test_scores_are_those_of_whole_gradients_with_ekfac_s_inverse_written_out(private_project: TinyProject) -> None:
    project = asking(private_project)
    project.run("exact_scores", KEY)
    rows = project.table(EXACT_SCORES, **PARTITION)
    data = project.table(TRAINING_EXAMPLES).sort("shard", "row")
    texts, n = data["text"].to_list(), data.height
    train = gradients_by_autograd(project, texts, [""] * n)
    (query,) = gradients_by_autograd(project, [" opens a file"], ["the with statement"])
    expected, own = np.zeros(n), np.zeros(n)
    for layer in LAYERS:
        g = torch.stack([one[layer] for one in train])
        a, b = covariances(project, texts, layer)
        q_in, q_out = torch.linalg.eigh(a)[1], torch.linalg.eigh(b)[1]
        rotated, of_query = q_in.T @ g @ q_out, q_in.T @ query[layer] @ q_out
        lam = rotated.square().mean(0)
        expected += (rotated * (of_query / (lam + 0.1 * lam.mean()))).sum((1, 2)).numpy()
        own += (rotated.square() / (lam + 0.1 * lam.mean())).sum((1, 2)).numpy()
    by_id = dict(zip(data["example_id"], expected, strict=True))
    of_first = rows.filter(pl.col("query_id") == "q0")
    wanted = [by_id[name] for name in of_first["example_id"]]
    scale = float(np.abs(wanted).max())
    assert of_first["score"].to_list() == pytest.approx(wanted, rel=2e-3, abs=1e-3 * scale)
    by_id = dict(zip(data["example_id"], own, strict=True))
    of_examples = np.array([by_id[name] for name in of_first["example_id"]])
    np.testing.assert_allclose(of_first["self_influence"], of_examples, rtol=2e-3)
    np.testing.assert_allclose(of_first["relative_score"], of_first["score"] / np.sqrt(of_examples), rtol=2e-3)


def covariances(project: TinyProject, texts: list[str], layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over all tokens of x x^T and dy dy^T, example by example."""
    checkpoints = project.opened.checkpoints
    files = checkpoints.get(CHECKPOINT)
    model = checkpoints.load_model(files, "float32", DeviceGroup.of("cpu")).double().eval()
    tokenizer = checkpoints.load_tokenizer(files)
    seen: list[torch.Tensor] = []
    model.get_submodule(layer).register_forward_hook(lambda _m, x, y: seen.extend((x[0], y)))
    a, b = 0, 0
    for text in texts:
        ids = tokenizer(text)["input_ids"][:48]
        seen.clear()
        logits = model(input_ids=torch.tensor([ids])).logits[0]
        loss = -sum(torch.log_softmax(logits[t - 1], 0)[ids[t]] for t in range(1, len(ids)))
        (dy,) = torch.autograd.grad(loss, seen[1])
        x = seen[0][0].detach()
        a, b = a + x.T @ x, b + dy[0].T @ dy[0]
    return a, b


def test_each_side_is_ranked_again_beside_its_stored_rank(private_project: TinyProject) -> None:
    project = asking(private_project)
    assert set(project.stale("exact_scores")) == {KEY}
    project.run("exact_scores", KEY)
    assert not project.stale("exact_scores")
    rows = project.table(EXACT_SCORES, **PARTITION)
    listed = project.table(QUERY_SCORES, **PARTITION).filter(pl.col("rank") <= 3)
    by = ["query_id", "side", "stored_rank", "example_id", "shard", "stored_score"]
    expected = listed.rename({"rank": "stored_rank", "score": "stored_score"}).select(by).sort(by)
    assert rows.select(by).sort(by).equals(expected)
    for (_, side), of_side in rows.group_by("query_id", "side"):
        ranked = of_side.sort("rank")["score"].to_list()
        assert ranked == sorted(ranked, reverse=side == "highest")
        assert of_side["rank"].sort().to_list() == [1, 2, 3]
    figures = project.figures("exact_scores", KEY)
    assert "EK-FAC is fitted to 36 examples in two passes" in figures["what_it_took"]
    assert figures["seconds_estimated"] >= 0


def test_conjugate_gradients_give_other_scores_and_one_round_ekfac_s_ranks(private_project: TinyProject) -> None:
    ranks, scores = {}, {}
    for name, fields in {
        "ekfac": {},
        "one": {"query_solver": "cg", "cg_rounds": 1},
        "two": {"query_solver": "cg", "cg_rounds": 2},
    }.items():
        project = asking(private_project, **fields)
        assert set(project.stale("exact_scores")) == {KEY}
        project.run("exact_scores", KEY)
        rows = project.table(EXACT_SCORES, **PARTITION).sort("query_id", "side", "stored_rank")
        ranks[name], scores[name] = rows["rank"].to_list(), rows["score"].to_numpy()
        assert set(rows["query_solver"]) == {fields.get("query_solver", "ekfac")}
    assert ranks["one"] == ranks["ekfac"]
    cosine = float(scores["two"] @ scores["ekfac"] / np.linalg.norm(scores["two"]) / np.linalg.norm(scores["ekfac"]))
    assert 0.3 < cosine < 0.9999


def test_a_recipe_of_whole_gradients_lends_its_own_inverse(ekfac_project: TinyProject, tmp_path: Path) -> None:
    with private_copy(ekfac_project, tmp_path) as copied:
        project = asking(copied.with_settings(recipe={"projection_factor": 1, "kfac_examples": 36, "rank": 16}))
        project.update()
        figures = project.figures("exact_scores", KEY)
        assert "the recipe's own curvature is of whole gradients" in figures["what_it_took"]
        own = project.table(EXACT_SCORES, **PARTITION).sort("query_id", "side", "stored_rank")["score"].to_list()
        stored = project.table(EXACT_SCORES, **PARTITION).sort("query_id", "side", "stored_rank")["stored_score"]
    # Codes of 8 bits at full rank are near to whole gradients.
    assert np.corrcoef(own, stored.to_list())[0, 1] > 0.999


def test_python_gives_those_that_belong_to_the_stored_scores(private_project: TinyProject) -> None:
    with lorif_assets.open(private_project.root / "lorif.toml") as opened:
        with pytest.raises(MismatchError, match=r"set `exact_scores\.enabled`"):
            opened.exact_scores(CHECKPOINT, QUERY_SET)
        asking(private_project).run("exact_scores", KEY)
        rows = opened.exact_scores(CHECKPOINT, QUERY_SET)
    assert rows.height == 18
    assert rows.filter(pl.col("rank") == 1).height == 6


def test_the_report_shows_the_exact_rank_beside_the_stored_one(private_project: TinyProject) -> None:
    project = asking(private_project)
    assert set(project.stale("attribution_report")) == {KEY}
    project.update()
    (where,) = project.table(REPORTS, **PARTITION)["uri"]
    page = Path(where).read_text()
    assert page.count('<span class="exact"') == 18
    assert "whole gradients" in page
