"""What a worker of a cluster sends: tensors as arrays, and errors that can be pickled."""

import pickle

import pytest
import torch

from lorif_assets.attribution.checkpoints.opened import CheckpointOpening
from lorif_assets.compute.ray_worker import _packed, _unpacked
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.models.checkpoints import HeldBase


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).mT,
        torch.randn(2, 3, dtype=torch.float64),
        torch.randn(4).bfloat16(),
        torch.tensor([True, False]),
        torch.tensor(7),
        torch.empty(3, 0),
        torch.empty(0, dtype=torch.long),
        torch.randn(5, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_a_tensor_arrives_as_it_was_sent_and_can_be_written_to(tensor: torch.Tensor) -> None:
    found = _unpacked(pickle.loads(pickle.dumps(_packed(tensor), protocol=5)))
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor.detach())
    found.zero_()


def test_an_unsound_query_is_named_on_the_other_side_too() -> None:
    found = pickle.loads(pickle.dumps(UnsoundQueryError("not finite", ["q1", "q2"])))
    assert (str(found), found.query_ids) == ("not finite", {"q1", "q2"})


def test_a_base_model_in_memory_is_not_sent() -> None:
    held = HeldBase()
    held.shared(("base",), lambda: torch.nn.Linear(2, 2))
    assert pickle.loads(pickle.dumps(held)) == HeldBase()


def test_a_checkpoint_can_be_opened_from_what_was_pickled(tiny_project) -> None:
    from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
    from tests.conftest import CHECKPOINTS

    stored = StoredCheckpoint.read(tiny_project.lake, CHECKPOINTS[0], tiny_project.settings.recipe)
    opening = CheckpointOpening(stored, tiny_project.opened.checkpoints, tiny_project.settings.batch)
    sent = pickle.dumps(opening)
    assert pickle.loads(sent).stored.record == stored.record
    assert len(sent) < 100_000, "neither weights nor factors"
