"""What `lorif_assets.TrainerCallback` adds to a training: with attribution elsewhere, and on the same cores at low priority.

A small GPT-2 with random weights is trained by transformers' Trainer on random tokens, in turn without the callback, with one
that registers each checkpoint as it is saved, which sensors on another machine would attribute, and with one that has a query
set attributed by a process of low priority on this machine. CPU seconds are those of the training process, which other work on
the machine changes little; wall seconds, those until the training ends, are what attribution on the same cores lengthens. What
it has not finished by then is waited for before the next training, unmeasured; the first run, which imports Dagster, is
not measured either.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from measurements import interleaved, markdown_table, report, setting_and_output
from tokenizers import Tokenizer, models, pre_tokenizers
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
    examples: int = 500
    repeats: int = 3
    threads: int = 1


def project(root: Path, setting: Setting) -> Path:
    """Write a project whose checkpoints are those of the training: its settings, examples and a query."""
    root.mkdir()
    (root / "lorif.toml").write_text(
        '[[sources]]\nname = "docs"\npath = "data"\n[checkpoints]\npath = "out"\n[tracking]\nuri = "none"\n'
        '[recipe]\nfactor_dtype = "sign"\ncurvature = "ekfac"\nkfac_examples = 64\n'
    )
    for folder in ("data", "queries"):
        (root / folder).mkdir()
    words = [" ".join(map(str, row)) for row in random_ids(setting.examples, setting.tokens)]
    (root / "data" / "docs.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in words))
    (root / "queries" / "questions.jsonl").write_text(json.dumps({"prompt": "1 2 3 ", "completion": "4 5 6"}))
    return root


def random_ids(rows: int, length: int) -> list[list[int]]:
    """Return rows of random words of the vocabulary, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (rows, length), generator=generator).tolist()


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
        ids = random_ids(setting.batch * setting.steps, setting.tokens)
        words = Tokenizer(models.WordLevel({str(word): word for word in range(VOCABULARY)}, unk_token="0"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
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
        elsewhere, here = (project(Path(folder, name), setting) for name in ("elsewhere", "here"))
        works = {
            "without the callback": training(elsewhere, setting, []),
            "checkpoints registered, attributed elsewhere": training(
                elsewhere, setting, [lorif_assets.TrainerCallback(elsewhere)]
            ),
            "attributed on the same cores": training(
                here, setting, [lorif_assets.TrainerCallback(here, query_sets="all")]
            ),
        }
        seconds = interleaved(works, setting.repeats, before=dict.fromkeys(works, partial(anew, here)))
        anew(here)
    alone = seconds["without the callback"]
    return [
        {
            "training": name,
            "cpu_seconds": taken.cpu,
            "wall_seconds": taken.wall,
            "overhead": taken.cpu / alone.cpu - 1,
            "wall_overhead": taken.wall / alone.wall - 1,
        }
        for name, taken in seconds.items()
    ]


def anew(root: Path) -> None:
    """Wait until nothing attributes any more, and forget what was."""
    psutil.wait_procs(psutil.Process().children())
    for folder in ("out", "lake"):
        shutil.rmtree(root / folder, ignore_errors=True)


COLUMNS = {
    "training": "{training}",
    "CPU s": "{cpu_seconds:.2f}",
    "wall s": "{wall_seconds:.2f}",
    "more CPU": "{overhead:.1%}",
    "longer": "{wall_overhead:.1%}",
}


def main() -> None:
    """Run the benchmark, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "trainer_callback")
    torch.set_num_threads(setting.threads)
    rows = measure(setting)
    report(output, setting, rows, markdown_table(COLUMNS, rows))


if __name__ == "__main__":
    main()
