"""Each token's share of a pair's influence: both sides sum to the score of uncompressed gradients."""

import pytest
import torch

from lorif_assets.attribution.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.listed_examples import listed_examples
from lorif_assets.attribution.precondition_queries import preconditioned_queries
from lorif_assets.attribution.score_modes import ReadQuerySet
from lorif_assets.attribution.token_shares import token_shares
from lorif_assets.config.sections import BatchSettings
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

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
