"""What lies beside the steps of a training: copies of them under other names, and models that were saved at the end.

The rules are the same for folders, repositories of the hub and object stores; each place says how files are compared.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, Protocol, Self, TypeVar

from lorif_assets.models.files.steps import is_marked, says_final, stage_in_name

# Between two files of a run that is copied; trainers take longer from one step that they save to the next.
_APART_SECONDS = 600
# What trainers call an adapter that they merged, beside the adapter itself.
_MERGED = re.compile(r"(?:.*[-_.])?merged(?:[-_.].*)?", re.IGNORECASE)
# What LLaMA-Factory keeps of an adapter by PiSSA before training, and of the trained one before it is a plain LoRA.
_UNCONVERTED = frozenset({"pissa_init", "pissa_backup"})
# And what it writes then, which alone fits the base model.
_CONVERTED = "pissa_converted"
# What TRL calls the copy of an adapter that a preference training compares with, beside the adapter that it trains.
_REFERENCES = frozenset({"ref", "reference"})


class HasName(Protocol):
    """A folder, or what is made of one."""

    @property
    def name(self) -> str:
        """What it is called; of a model, its partition's name."""


class SavedModel(HasName, Protocol):
    """A model as the listing of its place tells it."""

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
Named = TypeVar("Named", bound=HasName)


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
    """Return models of one place without copies, those that were saved at the end with the step that they follow.

    Args:
        models: those in its folders; one that is called `final`, `last` or `latest` was saved at the end.
        top: the model beside the folders, if there is one, which was saved at the end too.
        base: that of the models which the settings name as the base model: no copy of the step that it began as.
    """
    named = sorted((one for one in models if one.step_is_named), key=lambda one: one.step or 0)
    others = [one for one in models if not one.step_is_named]
    told = sorted(
        (one for one in others if one.step is not None and not says_final(one.name)), key=lambda one: one.step or 0
    )
    rest = [one for one in others if one not in told]
    kept, same, notes = list[Model](), dict[str, str](), list[str]()
    # A copy is one of what says its step more plainly than it does itself: that it was saved at the end says one too.
    for one in [*named, *told, *sorted(rest, key=lambda one: not says_final(one.name))]:
        compared = [] if one is base else [two for two in kept if two.step == one.step or not one.step_is_named]
        copied = next((two for two in compared if one.is_copy_of(two)), None)
        if copied:
            same[one.name] = f"{one.address} is {copied.name}: their files are the same"
        else:
            kept.append(one)
    steps = sorted(
        (one for one in kept if one.step_is_named or (one.step is not None and not says_final(one.name))),
        key=lambda one: one.step or 0,
    )
    last = top
    if top is not None and top is not base:
        # The model that was saved at the end is the best step, where training kept that.
        equal = next((one for one in reversed(kept) if one is not base and top.has_weights_of(one)), None)
        if equal and (equal.step is not None or says_final(equal.name)):
            same[top.name] = f"the model in {top.address} itself is {equal.name}: their weights are the same"
            last = None
        elif equal:
            same[equal.name] = f"{equal.address} is the model in {top.address} itself: their weights are the same"
            kept.remove(equal)
    found = [
        _at_end(one, steps, notes) if says_final(one.name) and not one.step_is_named and one is not base else one
        for one in kept
    ]
    if last is not None:
        found.append(last if last is base else _at_end(last, steps, notes))
    return TrainingOrder(found, [*same.values(), *notes, *_stages_out_of_order(steps)], same)


def without_other_forms(
    models: Sequence[Model], top: Model | None, is_adapter: Callable[[Model], bool]
) -> tuple[list[Model], Model | None, list[str]]:
    """Return the models of one place and the one beside them, without other forms of adapters there, and what is said of those.

    Other forms are adapters that are merged, or not converted yet, and those that trained ones are compared with.
    """
    if not any(is_adapter(one) for one in (*models, *([top] if top else []))):
        return list(models), top, []
    compared = references(models, is_adapter, beside=top is not None and is_adapter(top))
    merged = [one for one in models if _MERGED.fullmatch(one.name) and not is_adapter(one)]
    unconverted = [one for one in models if one.name in _UNCONVERTED]
    notes = references_note([one.address for one in compared])
    notes += [
        f"{one.address} is passed over: its name says that it is an adapter merged, and the adapters beside it are taken. Set "
        "`checkpoints.path` to it to attribute it alone"
        for one in merged
    ]
    notes += [
        f"{one.address} is passed over: its name says that it is what an adapter by PiSSA was converted from"
        for one in unconverted
    ]
    kept = [one for one in models if one not in (*compared, *merged, *unconverted)]
    converted = next((one for one in kept if one.name == _CONVERTED), None)
    if top and converted:
        notes.append(f"the adapter in {top.address} itself is passed over: {_CONVERTED} is the same as a plain LoRA")
        return [one for one in kept if one is not converted], converted.saved_at_end(top.step), notes
    return kept, top, notes


def references(some: Sequence[Named], is_adapter: Callable[[Named], bool], *, beside: bool) -> list[Named]:
    """Return the adapters in a folder that a preference training compares with one there.

    `beside` says that the folder itself is an adapter. Beside steps, one of that name is one more adapter: each step that
    was compared with it has its own copy.
    """
    compared = [one for one in some if one.name in _REFERENCES and is_adapter(one)]
    trained = [one for one in some if one not in compared and not is_marked(one.name)]
    return compared if beside or any(map(is_adapter, trained)) else []


def references_note(addresses: Sequence[str]) -> list[str]:
    """Return what is said of such adapters: nothing where there are none."""
    if not addresses:
        return []
    return [
        f"{addresses[0]} is passed over ({len(addresses)} such): its name says that it is the adapter that a preference "
        "training compares with the one beside it"
    ]


def _stages_out_of_order(steps: Sequence[Model]) -> list[str]:
    """Return what is said where names of models, in the order of their steps, say stages in another order."""
    told = [(one, stage) for one in steps if (stage := stage_in_name(one.name)) is not None]
    for (one, stage), (next_one, next_stage) in pairwise(told):
        if next_stage < stage:
            return [
                f"{one.name} comes before {next_one.name}: checkpoints are in the order of their steps, which begin anew with "
                "each stage. Set `checkpoints.path` to a folder of one stage, or give all of them names with steps that go on"
            ]
    return []


def _at_end(model: Model, steps: Sequence[Model], notes: list[str]) -> Model:
    """Return a model with the step after which it was saved: its own, that of the last, or the last before it was written.

    Times tell where they follow the steps, and a step was written before it; those of a copy seldom do.
    """
    if not steps or model.step is not None:
        return model.saved_at_end(model.step)
    dated = [(one, one.written) for one in steps if one.written is not None]
    times = [time for _, time in dated]
    last = dated[-1][0] if dated else steps[-1]
    saved = model.written
    if saved is None or not times or times != sorted(times) or times[-1] <= saved + _APART_SECONDS:
        return model.saved_at_end(last.step)
    before = [one for one, time in dated if time <= saved + _APART_SECONDS]
    if not before:
        notes.append(
            f"{model.address} is taken for the last one, though all steps were written after it, as in a copy. If training "
            "began with it, name it in `checkpoints.base_model`"
        )
        return model.saved_at_end(last.step)
    later = dated[len(before)][0]
    notes.append(
        f"{model.address} is taken for one after step {before[-1].step}: {later.name} was written later, as if training had "
        "gone on. If the times of the files mislead, give it the name of a step"
    )
    return model.saved_at_end(before[-1].step)
