"""The curvature `adam` and SOURCE through the whole pipeline, against dense matrices in FP64."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import KFAC_BASES, QUERY_SUMMARIES
from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.models.devices import DeviceGroup
from tests.assets.test_ekfac import LAYERS, all_scores, exactly, examples_of
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject, private_copy
from tests.mathematics.references import autograd_gradients, relative_error, token_covariances

EARLIER, CHECKPOINT = CHECKPOINTS
CPU = torch.device("cpu")


@pytest.fixture
def project(ekfac_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    with private_copy(ekfac_project, tmp_path) as copied:
        yield copied


def save_optimizer(project: TinyProject) -> dict[str, Tensor]:
    """Write the state of an AdamW that took two steps, and return the roots of its second moments by parameter."""
    from transformers import AutoModelForCausalLM

    folder = project.root / "checkpoints" / CHECKPOINT
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95))
    for ids, labels in examples_of(project, "texts")[:2]:
        model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    return {
        name: (optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.95**2)).sqrt().double() + 1e-8
        for name, parameter in model.named_parameters()
    }


def adam_by_autograd(project: TinyProject, roots: dict[str, Tensor], factor: int, damping: float) -> Tensor:
    """Scores by the diagonal of diag(sqrt(v)) in the whole Kronecker basis, in FP64."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(project.root / "checkpoints" / CHECKPOINT)
    layers = select_layers(model, ("*.attn.c_attn", "*.mlp.c_fc"))
    projections = [layer_projection(layer, Projection(factor=factor, seed=0)) for layer in layers]
    texts = examples_of(project, "texts")
    train = autograd_gradients(model, texts, projections)
    queries = autograd_gradients(model, examples_of(project, "queries"), projections)
    by_name = {projection.layer.name: projection for projection in projections}
    total = torch.zeros(len(queries[LAYERS[0]]), len(texts), dtype=torch.float64)
    for name, (inputs, outputs, tokens) in token_covariances(model, texts, projections).items():
        q_in, q_out = (torch.linalg.eigh(covariance / tokens)[1] for covariance in (inputs, outputs))
        left, right = (
            q if p is None else p.double() @ q for p, q in ((by_name[name].p_in, q_in), (by_name[name].p_out, q_out))
        )
        left, right = left / left.norm(dim=0), right / right.norm(dim=0)
        # GPT-2's weights have their inputs first.
        d = torch.einsum("ik,ij,jl->kl", left.square(), roots[f"{name}.weight"], right.square())
        rotated, asked = (q_in.T @ g @ q_out for g in (train[name], queries[name]))
        total += (asked / (d + damping * d.mean())).flatten(1) @ rotated.flatten(1).T
    return total


@pytest.mark.parametrize("factor", [1, 2])
def test_scores_of_the_curvature_adam_are_gradients_over_the_roots_of_second_moments(
    project: TinyProject, factor: int
) -> None:
    roots = save_optimizer(project)
    alone = project.with_settings(active={"checkpoints": (CHECKPOINT,)})
    found = all_scores(exactly(alone, factor, "adam"))
    assert relative_error(found, adam_by_autograd(project, roots, factor, 0.3)) < 2e-3


def test_a_checkpoint_without_the_optimizer_s_state_is_refused_and_what_is_stored_stays(project: TinyProject) -> None:
    alone = project.with_settings(active={"checkpoints": (CHECKPOINT,)})
    before = alone.table(KFAC_BASES, checkpoint=CHECKPOINT)
    with pytest.raises(LorifError, match=r"there is no .*optimizer\.pt.*\"ekfac\" say"):
        alone.with_settings(recipe={"curvature": "adam"}).update()
    assert alone.table(KFAC_BASES, checkpoint=CHECKPOINT).equals(before)


def test_another_state_of_the_optimizer_puts_all_that_is_made_of_it_out_of_date(project: TinyProject) -> None:
    save_optimizer(project)
    alone = project.with_settings(active={"checkpoints": (CHECKPOINT,)})
    adam = alone.with_settings(recipe={"curvature": "adam", "top_k": "all"})
    before, file = all_scores(adam), project.root / "checkpoints" / CHECKPOINT / "optimizer.pt"

    state = file.read_bytes()
    file.unlink()
    assert adam.stale("kfac_bases") == {}, "what was made of a state that is deleted stays true"
    file.write_bytes(state)
    assert adam.stale("kfac_bases") == {}, "a copy is the same state"

    other = torch.load(file)
    for number, of_one in other["state"].items():
        # All scaled alike would be the same geometry.
        of_one["exp_avg_sq"] *= 1 + number % 3
    torch.save(other, file)
    assert {stale.reason for stale in adam.stale("kfac_bases").values()} == {"the optimiser's state changed"}
    assert set(adam.update()) >= {"kfac_bases", "gradient_factors", "query_scores", "attribution_report"}
    assert relative_error(all_scores(adam), before) > 1e-3
    assert adam.update() == {}


def test_a_state_that_no_curvature_reads_puts_nothing_out_of_date(project: TinyProject) -> None:
    save_optimizer(project)
    assert all(project.stale(asset) == {} for asset in ("checkpoints", "kfac_bases", "gradient_factors"))


# --- SOURCE ----------------------------------------------------------------------------------------------------------


def as_source(project: TinyProject) -> TinyProject:
    return project.with_settings(
        recipe={
            "averaged_checkpoints": 2,
            "checkpoint_weights": "source",
            "source_time": 4.0,
            "top_k": "all",
            "factor_dtype": "fp32",
            "rank": 16,
        }
    )


def of_segments(project: TinyProject, times: tuple[float, float]) -> Tensor:
    """Scores of the two checkpoints as segments, by matrix exponentials of what is stored, in FP64."""
    recipe = project.settings.recipe
    run = [StoredCheckpoint.read(project.lake, name, recipe) for name in CHECKPOINTS]
    attributed = run[-1].load(project.opened.checkpoints, DeviceGroup.of("cpu")).model
    queries = {
        name: g.double()
        for name, g in autograd_gradients(
            attributed.model, examples_of(project, "queries"), attributed.projections
        ).items()
    }
    total = torch.zeros((), dtype=torch.float64)
    for at, stored in enumerate(run):
        for layer in LAYERS:
            hs = [curvature(one, layer) for one in run]
            carried = queries[layer].flatten(1)
            for later in range(len(run) - 1, at, -1):
                h, mean = hs[later]
                carried = carried @ torch.linalg.matrix_exp(-times[later] / mean * h)
            h, mean = hs[at]
            values, vectors = torch.linalg.eigh(h)
            t = times[at] / mean
            response = torch.where(values > 1e-12 * mean, -torch.expm1(-t * values) / values, t)
            m = carried @ vectors @ torch.diag(response) @ vectors.mT
            bases = stored.bases(layer, CPU)
            assert bases is not None
            blocks = stored.factors.blocks([layer], 1_000, CPU)
            dense = torch.cat([block[layer].u @ block[layer].v.mT for block in blocks])
            whitened = dense.double() / bases.scale.double()
            total = total + m @ (bases.q_in.double() @ whitened @ bases.q_out.double().mT).flatten(1).mT
    return total / len(run)


def curvature(stored: StoredCheckpoint, layer: str) -> tuple[Tensor, float]:
    ready = stored.preconditioners.load(layer, CPU)
    assert isinstance(ready, KroneckerPreconditioner)
    q = torch.kron(ready.bases.q_in.double(), ready.bases.q_out.double())
    return q @ torch.diag(ready.eigenvalues.flatten().double()) @ q.mT, float(ready.eigenvalues.mean())


def test_scores_of_a_run_s_segments_are_those_of_matrix_exponentials(project: TinyProject) -> None:
    source = as_source(project)
    found = all_scores(source)
    assert relative_error(found, of_segments(source, (4.0, 4.0))) < 2e-3
    assert source.figures("query_scores", f"{CHECKPOINT}|{QUERY_SET}")["averaged_with"] == [EARLIER]
    assert source.update() == {}
    longer = source.with_settings(recipe={"source_time": 5.0})
    assert set(longer.stale("query_scores")) == {f"{name}|{QUERY_SET}" for name in CHECKPOINTS}


def test_segments_train_for_as_long_as_the_trainer_s_learning_rates_say(project: TinyProject) -> None:
    source = as_source(project)
    source.update()
    before = source.table(QUERY_SUMMARIES, checkpoint=CHECKPOINT)["computed_from"][0]
    # Steps 100 and 200: the first one's segment lasts to 150, at three times the rate.
    log = [{"step": 10 * step, "learning_rate": 3e-3 if step <= 15 else 1e-3} for step in range(1, 21)]
    state = project.root / "checkpoints" / CHECKPOINT / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 200, "log_history": log}))
    assert source.update()["query_scores"]
    assert source.table(QUERY_SUMMARIES, checkpoint=CHECKPOINT)["computed_from"][0] != before
    lasted = 150 * 3e-3, 50 * 1e-3
    times = tuple(round(2 * one / sum(lasted), 4) * 4.0 for one in lasted)
    assert relative_error(all_scores(source), of_segments(source, (times[0], times[1]))) < 2e-3
