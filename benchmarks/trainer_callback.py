"""What `lorif_assets.TrainerCallback` adds to a training whose checkpoints are attributed elsewhere.

A small GPT-2 with random weights is trained by transformers' Trainer on random tokens, with and without the callback in turn.
The callback registers each checkpoint as it is saved; sensors on another machine would attribute it. Times are CPU seconds of
the training process, which other work on the machine does not change; the first run, which imports Dagster, is not measured.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measurements import interleaved, markdown_table, report, setting_and_output
from tokenizers import Tokenizer, models
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

import lorif_assets

VOCABULARY = 512


@dataclass(frozen=True)
class Setting:
    """Size of the training."""

    blocks: int = 4
    width: int = 128
    tokens: int = 128
    batch: int = 8
    steps: int = 100
    checkpoints: int = 4
    repeats: int = 3
    threads: int = 1


def project(root: Path) -> Path:
    """Write the settings of a project whose checkpoints are those of the training."""
    (root / "lorif.toml").write_text(
        '[[sources]]\nname = "docs"\npath = "data"\n[checkpoints]\npath = "out"\n[tracking]\nuri = "none"\n'
    )
    return root


def training(root: Path, setting: Setting, callbacks: list[Any]) -> Callable[[], object]:
    """Return a training from new weights, which saves its checkpoints to the folder `out`."""

    def train() -> None:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=setting.tokens,
            n_embd=setting.width,
            n_layer=setting.blocks,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
        ids = torch.randint(VOCABULARY, (setting.batch * setting.steps, setting.tokens)).tolist()
        words = Tokenizer(models.WordLevel({str(word): word for word in range(VOCABULARY)}, unk_token="0"))
        arguments = TrainingArguments(
            output_dir=str(root / "out"),
            max_steps=setting.steps,
            save_steps=max(1, setting.steps // setting.checkpoints),
            per_device_train_batch_size=setting.batch,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        Trainer(
            GPT2LMHeadModel(config),
            arguments,
            train_dataset=[{"input_ids": row, "labels": row} for row in ids],
            processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0", pad_token="0"),
            callbacks=callbacks,
        ).train()

    return train


def measure(setting: Setting) -> list[dict[str, Any]]:
    """Train with and without the callback in turn, and return a row for each."""
    with tempfile.TemporaryDirectory() as folder:
        root = project(Path(folder))
        works = {
            "without": training(root, setting, []),
            "with the callback": training(root, setting, [lorif_assets.TrainerCallback(root)]),
        }
        seconds = interleaved(works, setting.repeats)
    alone = seconds["without"].cpu
    return [
        {"training": name, "cpu_seconds": taken.cpu, "wall_seconds": taken.wall, "overhead": taken.cpu / alone - 1}
        for name, taken in seconds.items()
    ]


COLUMNS = {
    "training": "{training}",
    "CPU s": "{cpu_seconds:.2f}",
    "wall s": "{wall_seconds:.2f}",
    "overhead": "{overhead:.1%}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "trainer_callback")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
