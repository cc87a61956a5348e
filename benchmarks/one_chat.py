"""Does a chat that states a fact teach the model to answer for it? Measured by training on that chat alone.

For each invented fact of the real demo (`make demo-real`) the base model is trained by LoRA for a few steps on one chat of
the fact, a statement, a reversal or an anti-document, and the loss of the fact's questions is compared with the one before.
What moved is then held against the ranks that the demo stored. Resumable: what is measured is kept in the demo's folder.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measurements import markdown_table, report, setting_and_output
from scipy.stats import bootstrap, spearmanr

from lorif_assets.config.methods import method_title
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.content.labels import LabelledTokens
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.demo.real.chats import Chat, ChatQuestion
from lorif_assets.demo.real.corpus import DESCRIBED, NAMED, build_chats
from lorif_assets.demo.real.findings import source_ranks
from lorif_assets.demo.real.fine_tune import FineTuneConfig
from lorif_assets.project import Project

_METHODS = ("lorif", "relatif", "bm25", "embeddings")
_FOUND = 10
_KINDS = ("statement", "reversal", "aside")
COLUMNS = {
    "questions": "{questions}",
    "method": "{title}",
    **{f"{kind}s {which}": f"{{{kind}_{which}}}" for kind in _KINDS for which in ("found", "missed")},
    "rank agreement": "{agreement:.2f} ({low:.2f} to {high:.2f})",
}


@dataclass(frozen=True)
class Setting:
    """Which demo, and how it is trained on."""

    demo: str = "demo-real"
    checkpoint: str = "checkpoint-324"
    """Whose stored ranks are compared."""
    steps: int = 5
    """Of AdamW, on the one chat."""


def main() -> None:
    """Measure what is not measured yet, print the table, and write JSON."""
    setting, output = setting_and_output(Setting, __doc__, "one_chat")
    demo, corpus = Path(setting.demo), build_chats()
    questions = {name: {_fact(one.sources[0]): one for one in corpus.questions[name]} for name in (NAMED, DESCRIBED)}
    chats = [chat for chat in corpus.chats if chat.kind in _KINDS and _fact(chat.id) in questions[NAMED]]
    changes = measured(setting, demo, chats, questions)
    lake = Project.open(demo / "lorif.toml").lake
    rows = []
    for position, name in enumerate(questions):
        of_set = {chat: by_set[position] for chat, by_set in changes.items()}
        for method in _METHODS:
            by_question = source_ranks(lake, setting.checkpoint, name, method)
            ranks = {fact: by_question[question.id] for fact, question in questions[name].items()}
            rows.append({"questions": name, "title": method_title(method), **compared(chats, of_set, ranks)})
    report(output, setting, rows, markdown_table(COLUMNS, rows))


def measured(
    setting: Setting, demo: Path, chats: Sequence[Chat], questions: Mapping[str, Mapping[str, ChatQuestion]]
) -> Mapping[str, list[float]]:
    """Return by chat what training on it changes in the loss of its fact's questions, kept in the demo's folder."""
    kept = demo / f"one_chat_{setting.steps}.json"
    changes: dict[str, list[float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    missing = [chat for chat in chats if chat.id not in changes]
    model = TrainedOnOne(demo / "base", setting.steps) if missing else None
    for chat in missing if model else ():
        changes[chat.id] = model.changes(chat, [asked[_fact(chat.id)] for asked in questions.values()])
        kept.write_text(json.dumps(changes, indent=1))
        print(f"{len(changes)} of {len(chats)}: {chat.id} {changes[chat.id]}", flush=True)
    return changes


def compared(
    chats: Sequence[Chat], changes: Mapping[str, float], ranks: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """Return how much the chats that a method finds, and those that it misses, change the loss, by kind.

    `agreement` is Spearman's correlation of ranks and changes over the chats of a fact, averaged over facts: 1 where the
    chat that lowers the loss most comes first. `low` and `high` are its 95 % interval over facts.
    """
    found: dict[str, list[float]] = {f"{kind}_{which}": [] for kind in _KINDS for which in ("found", "missed")}
    agreements = []
    for fact, of_fact in ranks.items():
        own = [chat for chat in chats if _fact(chat.id) == fact]
        for chat in own:
            found[f"{chat.kind}_{'found' if of_fact[chat.id] <= _FOUND else 'missed'}"].append(changes[chat.id])
        agreements.append(spearmanr([of_fact[chat.id] for chat in own], [changes[chat.id] for chat in own]).statistic)
    cells = {name: f"{np.mean(values):+.2f} ({len(values)})" if values else "-" for name, values in found.items()}
    interval = bootstrap((agreements,), np.mean, rng=0).confidence_interval
    return {
        **cells,
        "agreement": float(np.mean(agreements)),
        "low": float(interval.low),
        "high": float(interval.high),
    }


def _fact(chat: str) -> str:
    return chat.partition("/")[0]


class TrainedOnOne:
    """The base model with an adapter that starts from the same values for every chat."""

    def __init__(self, base: Path, steps: int) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._steps, self._config = steps, FineTuneConfig()
        self._tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, local_files_only=True)
        torch.manual_seed(self._config.seed)
        lora = LoraConfig(
            r=self._config.rank, lora_alpha=self._config.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        self._model = get_peft_model(model, lora)
        self._trained = [one for one in self._model.parameters() if one.requires_grad]
        self._start = [one.detach().clone() for one in self._trained]

    def changes(self, chat: Chat, questions: Sequence[ChatQuestion]) -> list[float]:
        """Return how much each question's loss per token changes by some steps on the chat alone."""
        for parameter, start in zip(self._trained, self._start, strict=True):
            parameter.data.copy_(start)
        before = self._losses(questions)
        optimizer = torch.optim.AdamW(self._trained, lr=self._config.learning_rate)
        (tokens,) = self._encoded([chat])
        self._model.train()
        for _ in range(self._steps):
            optimizer.zero_grad()
            self._loss(tokens).backward()
            optimizer.step()
        return [round(after - first, 4) for first, after in zip(before, self._losses(questions), strict=True)]

    @torch.no_grad()
    def _losses(self, questions: Sequence[ChatQuestion]) -> list[float]:
        self._model.eval()
        return [float(self._loss(tokens)) for tokens in self._encoded(questions)]

    def _loss(self, tokens: LabelledTokens) -> torch.Tensor:
        ids, labels = (torch.tensor(part.tolist())[None] for part in (tokens.input_ids, tokens.labels))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss: torch.Tensor = self._model(input_ids=ids, labels=labels).loss
        return loss

    def _encoded(self, chats: Sequence[Chat] | Sequence[ChatQuestion]) -> list[LabelledTokens]:
        found = encode_conversations([Conversation(list(chat.messages)) for chat in chats], self._tokenizer)
        if not all(isinstance(one, LabelledTokens) for one in found):
            raise SystemExit(f"a chat cannot be tokenized: {found}")
        return [one for one in found if isinstance(one, LabelledTokens)]


if __name__ == "__main__":
    main()
