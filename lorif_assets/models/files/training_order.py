"""What lies beside the steps of a training: copies of them under other names, and models that were saved at the end.

The rules are the same for folders, repositories of the hub and object stores; each place says how files are compared.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

# What a model is called that was saved after the last step.
_FINAL = re.compile(r"(?:.*[-_.])?(?:final|last)(?:[-_.].*)?", re.IGNORECASE)
# Between two files of a run that is copied; trainers take longer from one step that they save to the next.
_APART_SECONDS = 600


class SavedModel(Protocol):
    """A model as the listing of its place tells it."""

    @property
    def name(self) -> str:
        """Its partition's name."""

    @property
    def step(self) -> int | None:
        """The training step, where the name or a trainer's state says one."""

    @property
    def step_is_named(self) -> bool:
        """Whether the step is what the name says, and not what a trainer's state beside the model does."""

    @property
    def address(self) -> str:
        """Where it is, in words."""

    @property
    def written(self) -> float | None:
        """When its weights were written, in seconds; None where the place does not tell."""

    def is_copy_of(self, other: Self) -> bool:
        """Whether all that the model is loaded from is the same in another one: weights, configuration and tokenizer."""

    def has_weights_of(self, other: Self) -> bool:
        """Whether the weights are those of another one."""

    def saved_at_end(self, step: int | None) -> Self:
        """Return the model as one that a trainer saved at the end, after a step."""


Model = TypeVar("Model", bound=SavedModel)


@dataclass(frozen=True)
class TrainingOrder(Generic[Model]):
    """The models that are checkpoints, and what is said of the others, and of those before steps that follow."""

    models: Sequence[Model]
    notes: Sequence[str] = ()
    same: Mapping[str, str] = field(default_factory=dict)
    """What copies are, by name."""


def in_training_order(
    models: Sequence[Model], top: Model | None = None, base: Model | None = None
) -> TrainingOrder[Model]:
    """Return models of one place without copies of a step, those that were saved at the end with the step that they follow.

    Args:
        models: those in its folders; one that is called `final` or `last` was saved at the end.
        top: the model beside the folders, if there is one, which was saved at the end too.
        base: that of the models which the settings name as the base model: no copy of the step that it began as.
    """
    named = sorted((one for one in models if one.step_is_named), key=lambda one: one.step or 0)
    others, same, notes = list[Model](), dict[str, str](), list[str]()
    for one in (one for one in models if not one.step_is_named):
        copied = None if one is base else next((step for step in named if one.is_copy_of(step)), None)
        if copied:
            same[one.name] = f"{one.address} is {copied.name}: their files are the same"
        else:
            others.append(one)
    told = [one for one in others if one.step is not None and not says_final(one.name)]
    steps = sorted([*named, *told], key=lambda one: one.step or 0)
    kept = [*named, *(_at_end(one, steps, notes) if says_final(one.name) else one for one in others)]
    if top is None:
        return TrainingOrder(kept, [*same.values(), *notes], same)
    # The model that was saved at the end is the best step, where training kept that.
    compared = [one for one in kept if one.step is not None] or kept
    equal = next((one for one in reversed(compared) if top.has_weights_of(one)), None)
    if equal:
        same[top.name] = f"the model in {top.address} itself is {equal.name}: their weights are the same"
    else:
        kept.append(_at_end(top, steps, notes))
    return TrainingOrder(kept, [*same.values(), *notes], same)


def says_final(name: str) -> bool:
    """Whether a folder's name says that its model was saved after the last step."""
    return _FINAL.fullmatch(name) is not None


def _at_end(model: Model, steps: Sequence[Model], notes: list[str]) -> Model:
    """Return a model with the step after which it was saved: its own, that of the last, or the last before it was written.

    Times tell where they follow the steps; those of a copy seldom do.
    """
    if not steps or model.step is not None:
        return model.saved_at_end(model.step)
    times = [one.written for one in steps if one.written is not None]
    saved = model.written
    if saved is None or len(times) < len(steps) or times != sorted(times) or times[-1] <= saved + _APART_SECONDS:
        return model.saved_at_end(steps[-1].step)
    before = [one.step for one, time in zip(steps, times, strict=True) if time <= saved + _APART_SECONDS]
    later = steps[len(before)]
    notes.append(
        f"{model.address} is taken {f'for one after step {before[-1]}' if before else 'before all steps'}: {later.name} was "
        "written later, as if training had gone on. If the times of the files mislead, give it the name of a step"
    )
    return model.saved_at_end(before[-1] if before else None)
