"""Fine-tuning by LoRA, with the library's own trainer: adapters at several steps, in the folders that it writes."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.labels import LabelledTokens
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.demo.real.chats import Chat
from lorif_assets.demo.training import has_bfloat16_products
from lorif_assets.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

_STATE = "trainer_state.json"
"""The last file that the trainer writes of a checkpoint."""


@dataclass(frozen=True)
class FineTuneConfig:
    """How the model is fine-tuned; an adapter is kept after every epoch."""

    epochs: int = 6
    """Passes over the chats."""
    batch_chats: int = 4
    """Chats of an optimiser step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW; it rises over the first tenth of the steps and falls along half a cosine."""
    rank: int = 16
    """Of the adapters, on every linear layer of the blocks."""
    alpha: int = 32
    """Scale of the adapters, times the rank."""
    seed: int = 0
    """Of the adapters' starting values, and of the order of the chats."""

    def steps(self, n_chats: int) -> list[int]:
        """Return the steps after which an adapter is written."""
        per_epoch = -(-n_chats // self.batch_chats)
        return [per_epoch * epoch for epoch in range(1, self.epochs + 1)]


def adapter_path(directory: Path, step: int) -> Path:
    """Where the adapter of a step is."""
    return directory / f"checkpoint-{step}"


def fine_tune(base: Path, chats: Sequence[Chat], directory: Path, config: FineTuneConfig) -> None:
    """Train adapters, from the last one that is finished in the directory, if there is one.

    The chats are tokenized as attribution tokenizes them: the loss is on the assistant's turns. Adapters are trained in
    FP32; the base, and matrix products, are in BF16 where the device multiplies it natively.

    Args:
        base: folder of the base model, as `save_base` writes it.
        chats: what to train on.
        directory: where folders `checkpoint-<step>` go.
        config: how to train.

    Raises:
        SourceError: the tokenizer's chat template cannot render a chat.
    """
    if (adapter_path(directory, config.steps(len(chats))[-1]) / _STATE).is_file():
        return
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    from lorif_assets.demo.real.step_progress import StepProgress

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    examples = _examples(chats, tokenizer)
    on_cpu = not torch.cuda.is_available()
    in_bfloat16 = not on_cpu or has_bfloat16_products()
    dtype = torch.bfloat16 if in_bfloat16 else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base.absolute(), dtype=dtype, local_files_only=True)
    model.config.use_cache = False
    lora = LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    arguments = TrainingArguments(
        output_dir=str(directory),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_chats,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.1 * config.steps(len(chats))[-1]),
        save_strategy="epoch",
        # Every step, so that the state of a checkpoint tells the learning rates that led to it.
        logging_steps=1,
        log_level="error",
        disable_tqdm=True,
        seed=config.seed,
        bf16=in_bfloat16,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        report_to="none",
    )
    last = _last_finished(directory)
    with warnings.catch_warnings(), torch.random.fork_rng():
        # peft asks transformers by a name that it has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(config.seed)
        trainer = Trainer(
            get_peft_model(model, lora),
            arguments,
            train_dataset=examples,
            data_collator=lambda batch: _padded(batch, tokenizer.pad_token_id),
            processing_class=tokenizer,
            callbacks=[StepProgress()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)


def _examples(chats: Sequence[Chat], tokenizer: "PreTrainedTokenizerBase") -> list[Mapping[str, Sequence[int]]]:
    encoded = encode_conversations([Conversation(list(chat.messages)) for chat in chats], tokenizer)
    examples: list[Mapping[str, Sequence[int]]] = []
    for chat, tokens in zip(chats, encoded, strict=True):
        if not isinstance(tokens, LabelledTokens):
            raise SourceError(f"the chat {chat.id} cannot be trained on: {tokens}")
        examples.append({"input_ids": tokens.input_ids.tolist(), "labels": tokens.labels.tolist()})
    return examples


def _padded(batch: Sequence[Mapping[str, Sequence[int]]], padding: int) -> "dict[str, Tensor]":
    import torch
    from torch.nn.utils.rnn import pad_sequence

    columns = {name: [torch.tensor(example[name]) for example in batch] for name in ("input_ids", "labels")}
    mask = [torch.ones_like(ids) for ids in columns["input_ids"]]
    return {
        "input_ids": pad_sequence(columns["input_ids"], batch_first=True, padding_value=padding),
        "labels": pad_sequence(columns["labels"], batch_first=True, padding_value=-100),
        "attention_mask": pad_sequence(mask, batch_first=True),
    }


def _last_finished(directory: Path) -> Path | None:
    """The newest adapter that was written to its end; what an interruption left half-written is removed."""
    folders = sorted(directory.glob("checkpoint-*"), key=lambda folder: int(folder.name.partition("-")[2]))
    for folder in folders:
        if not (folder / _STATE).is_file():
            shutil.rmtree(folder)
    return next((folder for folder in reversed(folders) if folder.is_dir()), None)
