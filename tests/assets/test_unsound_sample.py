"""K-FAC bases where one example of the sample is not finite: it is set aside by name, and the fit goes on without it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.errors import LorifError
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink
from lorif_assets.mathematics.gradients.token_losses import sampled_targets
from tests.conftest import CHECKPOINTS, SHARDS, TinyProject, private_copy

CHECKPOINT = CHECKPOINTS[1]
LAYER = "transformer.h.1.mlp.c_fc"
KEY = f"{CHECKPOINT}|{LAYER}"
MARKED = "a file fails in a wholly singular way"


@pytest.fixture
def project(ekfac_project: TinyProject, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy in which one example has a text of its own, and all examples are in the sample."""
    with private_copy(ekfac_project, tmp_path) as copied:
        copied.edit_shard(0, 3, MARKED)
        project = copied.with_settings(
            active={"checkpoints": (CHECKPOINT,)}, recipe={"kfac_examples": 100}, data={"max_rejected_share": 0.1}
        )
        project.run("training_examples", SHARDS[0])
        yield project


def marked_ids(project: TinyProject) -> list[int]:
    tokenizer = project.opened.checkpoints.load_tokenizer(project.opened.checkpoints.get(CHECKPOINT))
    return list(tokenizer(MARKED)["input_ids"])


def is_marked(batch: TokenBatch, ids: list[int]) -> list[int]:
    return [row for row, found in enumerate(batch.input_ids.tolist()) if found[: len(ids)] == ids]


def spoil_activations(patch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """The example's activations at the last block are NaN, as from an overflow in a narrow type."""
    observe, stream = GradientCollector.observe, GradientCollector.stream

    def during(self: GradientCollector, batch: TokenBatch, run: Callable[[], Tensor]) -> Tensor:
        rows = is_marked(batch, ids)

        def spoil(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output.index_fill(0, torch.tensor(rows), float("nan")) if rows else output

        hook = self._model.transformer.h[1].ln_1.register_forward_hook(spoil)  # type: ignore[union-attr, index, operator]
        try:
            return run()
        finally:
            hook.remove()

    def spoilt_observe(self: GradientCollector, batch: TokenBatch, *how: Any) -> Tensor:
        return during(self, batch, lambda: observe(self, batch, *how))

    def spoilt_stream(self: GradientCollector, batch: TokenBatch, *how: Any) -> Tensor:
        return during(self, batch, lambda: stream(self, batch, *how))

    patch.setattr(GradientCollector, "observe", spoilt_observe)
    patch.setattr(GradientCollector, "stream", spoilt_stream)


def spoil_gradients(patch: pytest.MonkeyPatch, ids: list[int]) -> None:
    """The example's gradient is not finite in one layer, though its tokens are."""
    stream = GradientCollector.stream

    def spoilt(self: GradientCollector, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> Tensor:
        rows = is_marked(batch, ids)

        def spoiling(layer: str, at: slice, gradients: Tensor) -> None:
            for row in rows:
                if layer == LAYER and at.start <= row < at.stop:
                    gradients[row - at.start, 0, 0] = float("inf")
            sink(layer, at, gradients)

        return stream(self, batch, spoiling, max_numbers)

    patch.setattr(GradientCollector, "stream", spoilt)


@pytest.mark.parametrize("labels", ["data", "model"])
@pytest.mark.parametrize("spoil", [spoil_activations, spoil_gradients])
def test_it_is_set_aside_by_name_and_the_others_give_the_bases(
    spoil: Callable[[pytest.MonkeyPatch, list[int]], None],
    labels: str,
    project: TinyProject,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    project = project.with_settings(recipe={"kfac_labels": labels})
    project.run("checkpoints", CHECKPOINT)
    with monkeypatch.context() as patch:
        spoil(patch, marked_ids(project))
        project.run("kfac_bases", KEY)
    (rejected,) = project.table(REJECTED, stage="kfac_bases", part=CHECKPOINT).to_dicts()
    assert (rejected["example_id"], rejected["reason"]) == ("doc0-3", "the loss or a gradient is not finite")
    assert "singular" in rejected["excerpt"]
    figures = project.figures("kfac_bases", KEY)
    n_examples = project.table(TRAINING_EXAMPLES).height
    assert figures["how"] == f"fitted to {n_examples - 1} examples"
    assert figures["rejected_rows"] == 1
    bases = project.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert set(bases["n_examples"]) == {n_examples - 1}
    for uri in bases["uri"]:
        assert all(tensor.isfinite().all() for tensor in project.lake.read_tensors(uri).values())

    # They are those of a sample that does not hold the example.
    file = project.root / "data/00000.jsonl"
    file.write_text("\n".join(row for row in file.read_text().splitlines() if json.loads(row).get("text") != MARKED))
    project.run("training_examples", SHARDS[0])
    project.run("kfac_bases", KEY, config={"recompute": True})
    again = project.table(KFAC_BASES, checkpoint=CHECKPOINT)
    assert project.table(REJECTED, stage="kfac_bases").is_empty()
    assert again["n_examples"].to_list() == bases["n_examples"].to_list()
    for one, other in zip(bases.sort("layer")["kept_energy"], again.sort("layer")["kept_energy"], strict=True):
        assert one == pytest.approx(other, rel=0.2)


def test_more_than_the_settings_allow_are_refused(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project.with_settings(data={"max_rejected_share": 0.0})
    project.run("checkpoints", CHECKPOINT)
    with monkeypatch.context() as patch:
        spoil_activations(patch, marked_ids(project))
        with pytest.raises(LorifError, match=r"1 of \d+ rows are set aside .*the loss or a gradient is not finite"):
            project.run("kfac_bases", KEY)
    assert project.table(REJECTED, stage="kfac_bases")["example_id"].to_list() == ["doc0-3"]


def test_a_sample_without_a_sound_example_is_the_checkpoints_fault(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.run("checkpoints", CHECKPOINT)
    loaded = AttributedModel.batch

    def damaged(self: AttributedModel, *chosen: Any) -> TokenBatch:
        with torch.no_grad():
            self.model.transformer.ln_f.weight.fill_(float("nan"))
        return loaded(self, *chosen)

    monkeypatch.setattr(AttributedModel, "batch", damaged)
    with pytest.raises(LorifError, match=r"gives no K-FAC bases: .*Are the checkpoint's weights finite\?"):
        project.run("kfac_bases", KEY)


def test_a_draw_from_logits_that_are_not_finite_is_any_draw() -> None:
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, 2, -100], [3, 4, 0]])
    sound = sampled_targets(logits, targets, torch.Generator().manual_seed(1))
    logits[1, 2] = float("nan")
    drawn = sampled_targets(logits, targets, torch.Generator().manual_seed(1))
    assert drawn[0].tolist() == sound[0].tolist()
    assert 0 <= int(drawn[1, 2]) < 5
