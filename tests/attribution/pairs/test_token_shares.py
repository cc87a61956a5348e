"""Each token's share of a pair's influence: both sides sum to the score of uncompressed gradients."""

from typing import Any

import numpy as np
import pytest
import torch

from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.pairs.token_shares import token_shares
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.attribution.queries.query_gradients import stream_query_gradients
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.models.devices import DeviceGroup
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject
from tests.mathematics.gradients.families import tiny_model

LISTED = [(SHARDS[shard], f"doc{shard}-{row}") for shard in (0, 2) for row in (0, 3, 7)]


@pytest.fixture(params=["svd", "ekfac"])
def checkpoint(request: pytest.FixtureRequest) -> AttributedCheckpoint:
    project: TinyProject = request.getfixturevalue({"svd": "tiny_project", "ekfac": "ekfac_project"}[request.param])
    stored = StoredCheckpoint.read(project.lake, CHECKPOINTS[-1], project.settings.recipe)
    with project.opened.devices.lease() as group:
        return stored.load(project.opened.checkpoints, group)


@pytest.mark.parametrize("batch", [BatchSettings(), BatchSettings(tokens=24)])
def test_both_sides_sum_to_the_product_of_the_preconditioned_query_and_the_whole_gradient(
    checkpoint: AttributedCheckpoint, batch: BatchSettings
) -> None:
    attributed = checkpoint.model
    query = ReadQuerySet.of(checkpoint, QUERY_SET).tokenized.examples[0]
    found = listed_examples(checkpoint.stored.lake, attributed, LISTED)
    examples = [found[pair] for pair in LISTED]
    # What scores factors scores whole gradients too, in the axes of the factors.
    queries = preconditioned_queries(checkpoint, [query], batch).by_layer
    expected = torch.zeros(len(examples), dtype=torch.float64)
    for positions, computed in attributed.gradients(examples, 48):
        for layer, gradients in computed.gradients.items():
            bases = checkpoint.stored.bases(layer, attributed.device)
            stored_form = bases.whitened(gradients) if bases else gradients
            of_query = queries[layer]
            assert isinstance(of_query, torch.Tensor)
            expected[positions] += (stored_form.flatten(1) @ of_query[0]).double()
    shares = dict(token_shares(attributed, checkpoint.inverse_of, query, examples, batch))
    scale = float(expected.abs().max())
    for position, example in enumerate(examples):
        of_pair = shares[position]
        assert of_pair.score == pytest.approx(float(expected[position]), rel=1e-4, abs=1e-5 * scale)
        assert len(of_pair.of_example) == len(example.input_ids)
        (of_query,) = of_pair.of_query
        assert len(of_query) == len(query.input_ids)
        for side in (of_pair.of_example, of_query):
            assert float(side.double().sum()) == pytest.approx(of_pair.score, rel=1e-4, abs=1e-5 * scale)


def test_only_tokens_that_carry_loss_have_a_share(checkpoint: AttributedCheckpoint) -> None:
    query = ReadQuerySet.of(checkpoint, QUERY_SET).tokenized.examples[0]
    (example,) = listed_examples(checkpoint.stored.lake, checkpoint.model, LISTED[:1]).values()
    ((_, shares),) = token_shares(checkpoint.model, checkpoint.inverse_of, query, [example], BatchSettings())
    (of_query,) = shares.of_query
    assert of_query[torch.tensor(query.labels == -100)].abs().sum() == 0
    assert of_query[torch.tensor(query.labels != -100)].abs().min() > 0
    assert shares.of_example[0] == 0
    assert shares.of_example[1:].abs().min() > 0


class _Halving:
    """An inverse curvature."""

    norm_weight = 1.0
    axis_sizes = None

    def inverse(self, gradients: torch.Tensor) -> torch.Tensor:
        return gradients / 2

    apply = inverse


def _adapted() -> Any:
    peft = pytest.importorskip("peft")
    model = tiny_model("llama")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


def _pieces(*lengths: int, seed: int) -> TokenizedExample:
    """Tokens of pieces that in turn carry no loss and loss: of a chat the user's turns, calls of tools and their results."""
    ids = np.random.default_rng(seed).integers(3, 60, sum(lengths))
    silent = np.concatenate([np.full(length, piece % 2 == 0) for piece, length in enumerate(lengths)])
    return TokenizedExample("example", seed, ids, np.where(silent, -100, ids))


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (lambda: tiny_model("llama"), {}),
        (lambda: tiny_model("llama", tie_word_embeddings=True), {"include_layers": ["*mlp*", "lm_head"]}),
        (lambda: tiny_model("mixtral"), {}),
        (_adapted, {"track": "weights"}),
        (_adapted, {"track": "adapter"}),
    ],
    ids=["chat", "tied-head", "experts", "merged-adapter", "adapter"],
)
def test_both_sides_sum_to_the_score_of_every_kind_of_model_and_of_turns_with_and_without_loss(
    make: Any, fields: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model, recipe = make().eval(), Recipe(projection_factor=2, **fields)
    record = CheckpointRecord("tiny", "", "", "", model.num_parameters(), None, {})
    group = DeviceGroup((torch.device("cpu"),))
    attributed = AttributedModel(record, recipe, model, None, (), "", group).under(recipe)  # type: ignore[arg-type]
    query = _pieces(3, 2, 2, 3, seed=0)
    examples = [_pieces(2, 3, seed=1), _pieces(1, 1, 4, 2, 1, 1, seed=2), _pieces(0, 9, seed=3)]
    direction: dict[str, torch.Tensor] = {}
    batch = BatchSettings()
    stream_query_gradients(attributed, [query], lambda layer, _, found: direction.update({layer: found / 2}), batch)
    expected = torch.zeros(len(examples), dtype=torch.float64)
    for positions, computed in attributed.gradients(examples, batch.tokens):
        for layer, gradients in computed.gradients.items():
            expected[positions] += (gradients.flatten(1) @ direction[layer].flatten()).double()
    shares = dict(token_shares(attributed, lambda _: _Halving(), query, examples, batch))  # type: ignore[arg-type, return-value]
    scale = float(expected.abs().max())
    for position in range(len(examples)):
        (of_query,) = shares[position].of_query
        for side, example in ((shares[position].of_example, examples[position]), (of_query, query)):
            assert float(side.double().sum()) == pytest.approx(float(expected[position]), rel=1e-4, abs=1e-5 * scale)
            assert not side[torch.tensor(example.labels == -100)].any()
