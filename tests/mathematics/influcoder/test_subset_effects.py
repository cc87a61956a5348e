"""The effect of single examples on losses, from models that were retrained on subsets."""

import pytest
import torch

from lorif_assets.mathematics.influcoder.subset_effects import subset_effects


def test_an_effect_is_the_mean_loss_without_the_example_less_the_mean_with_it():
    members = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    losses = torch.tensor([[1.0, 2.0, 5.0, 8.0]])
    expected = [[(5 + 8) / 2 - (1 + 2) / 2, (2 + 8) / 2 - (1 + 5) / 2]]
    torch.testing.assert_close(subset_effects(members, losses), torch.tensor(expected, dtype=torch.float64))


def test_of_losses_that_add_up_the_effects_are_the_terms():
    # Every subset of four examples: presence of one is balanced by that of the others.
    members = torch.tensor([[bool(number >> example & 1) for example in range(4)] for number in range(16)])
    terms = torch.tensor([[0.5, -1.0, 0.0, 3.0], [2.0, 0.0, 1.0, -4.0]], dtype=torch.float64)
    losses = 7.0 - terms @ members.double().mT
    torch.testing.assert_close(subset_effects(members, losses), terms)


@pytest.mark.parametrize("always", [True, False])
def test_nothing_is_known_of_an_example_that_is_always_or_never_there(always):
    members = torch.tensor([[always, True], [always, False], [always, True]])
    found = subset_effects(members, torch.tensor([[1.0, 2.0, 3.0]]))
    assert found[0, 0] == 0.0
    assert found[0, 1] == pytest.approx(2.0 - 2.0)
