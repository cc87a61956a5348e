"""How far a trainer is, in the form of every other stage."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorif_assets.progress import Progress


class StepProgress(TrainerCallback):
    """Shows the optimiser steps of a training."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to count, from where the training goes on."""
        del args, control, kwargs
        self._progress = Progress("fine-tune the model", state.max_steps - state.global_step, "steps")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step."""
        del args, state, control, kwargs
        self._progress.advance(1)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        del args, state, control, kwargs
        self._progress.__exit__(None, None, None)
