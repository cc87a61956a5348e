"""Second moments of Adam from `optimizer.pt`: which are whose, and what is refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from lorif_assets.errors import CheckpointError
from lorif_assets.models.training.optimizer_states import OPTIMIZER_FILE, root_second_moments

WEIGHT = "transformer.h.1.mlp.c_fc.weight"
Groups = list[dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=8, n_layer=2, n_head=2))


def in_the_trainers_order(model: nn.Module) -> Groups:
    # The Trainer's own rule, which our reading of it must follow.
    with TemporaryDirectory() as folder:
        trainer = Trainer(model=model, args=TrainingArguments(folder, report_to="none", use_cpu=True))
    decayed = set(trainer.get_decay_parameter_names(model))
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if (name in decayed) is first], "weight_decay": decay}
        for first, decay in ((True, 0.1), (False, 0.0))
    ]


def by_dimensions(model: nn.Module) -> Groups:
    return [{"params": [p for p in model.parameters() if (p.ndim > 1) is first]} for first in (True, False)]


def all_at_once(model: nn.Module) -> Groups:
    return [{"params": list(model.parameters())}]


def by_name_backwards(model: nn.Module) -> Groups:
    return [{"params": [*model.named_parameters()][::-1]}]


def trained(
    model: nn.Module, groups: Groups, steps: int = 3, kind: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> Any:
    optimizer = kind(groups, lr=1e-4)
    for step in range(steps):
        torch.manual_seed(step)
        ids = torch.randint(31, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("groups", [in_the_trainers_order, by_dimensions, all_at_once, by_name_backwards])
def test_they_are_those_that_adam_divides_steps_by(
    model: nn.Module, groups: Callable[[nn.Module], Groups], tmp_path: Path
) -> None:
    optimizer = trained(model, groups(model))
    torch.save(optimizer.state_dict(), tmp_path / OPTIMIZER_FILE)
    names = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    found = root_second_moments(tmp_path, model, names)
    assert list(found) == names
    for name, parameter in model.named_parameters():
        if name in found:
            moments = optimizer.state[parameter]["exp_avg_sq"] / (1 - 0.999**3)
            torch.testing.assert_close(found[name], moments.sqrt() + 1e-8)


def saved(tmp_path: Path, state: Mapping[str, Any]) -> Path:
    torch.save(state, tmp_path / OPTIMIZER_FILE)
    return tmp_path


def test_without_a_file_what_lies_there_instead_is_named(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no .*optimizer\.pt\. The Trainer writes it unless"):
        root_second_moments(tmp_path, model, [WEIGHT])
    (tmp_path / "global_step12").mkdir()
    with pytest.raises(CheckpointError, match=r"found global_step12 \(DeepSpeed's shards\), which is not read"):
        root_second_moments(tmp_path, model, [WEIGHT])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (torch.optim.SGD, "no Adam's"),
        (lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9), "Muon's, or SGD's with momentum"),
        (torch.optim.RMSprop, "RMSprop's"),
        (torch.optim.Adagrad, "Adagrad's"),
    ],
)
def test_another_optimizer_s_state_is_recognised(model: nn.Module, kind: Any, words: str, tmp_path: Path) -> None:
    optimizer = trained(model, all_at_once(model), kind=kind)
    with pytest.raises(CheckpointError, match=rf"{words}.*take `recipe.curvature = \"ekfac\"`"):
        root_second_moments(saved(tmp_path, optimizer.state_dict()), model, [WEIGHT])


def test_muon_s_state_is_recognised(model: nn.Module, tmp_path: Path) -> None:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2]
    state = torch.optim.Muon(matrices, lr=1e-4)
    for parameter in matrices:
        parameter.grad = torch.ones_like(parameter)
    state.step()
    for parameter in matrices:
        parameter.grad = None
    muon = state.state_dict()
    others = [{"params": [len(matrices) + at for at in range(len(list(model.parameters())) - len(matrices))]}]
    both = {"state": muon["state"], "param_groups": [*muon["param_groups"], *others]}
    with pytest.raises(CheckpointError, match="Muon's, or SGD's with momentum, which have no second moments"):
        root_second_moments(saved(tmp_path, both), model, [WEIGHT])


def test_another_model_s_state_is_refused(model: nn.Module, tmp_path: Path) -> None:
    other = GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=12, n_layer=2, n_head=2))
    state = trained(other, all_at_once(other)).state_dict()
    with pytest.raises(CheckpointError, match="does not fit the model: it has groups of 28 parameters"):
        root_second_moments(saved(tmp_path, state), model, [WEIGHT])


def test_a_weight_without_a_state_of_its_own_is_named(model: nn.Module, tmp_path: Path) -> None:
    state = trained(model, all_at_once(model)).state_dict()
    # The head shares the embedding's weight.
    with pytest.raises(CheckpointError, match=r"no state of 'lm_head\.weight'.*recipe.exclude_layers"):
        root_second_moments(saved(tmp_path, state), model, ["lm_head.weight"])


def test_moments_that_no_adam_has_are_refused(model: nn.Module, tmp_path: Path) -> None:
    state = trained(model, all_at_once(model)).state_dict()
    number = [name for name, _ in model.named_parameters()].index(WEIGHT)
    state["state"][number]["exp_avg_sq"][0, 0] = -1.0
    with pytest.raises(CheckpointError, match="negative or not finite; is the file damaged"):
        root_second_moments(saved(tmp_path, state), model, [WEIGHT])


def test_code_in_the_file_is_not_run(model: nn.Module, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    class Hostile:
        def __reduce__(self) -> Any:
            return Path.touch, (touched,)

    torch.save({"state": {0: Hostile()}, "param_groups": []}, tmp_path / OPTIMIZER_FILE)
    with pytest.raises(CheckpointError, match="can be read without running code of its own"):
        root_second_moments(tmp_path, model, [WEIGHT])
    assert not touched.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 broken"])
def test_what_is_no_state_is_refused(content: bytes, model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / OPTIMIZER_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match="no optimiser's state that can be read"):
        root_second_moments(tmp_path, model, [WEIGHT])
