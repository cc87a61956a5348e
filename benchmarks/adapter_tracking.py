"""Which predicts retraining better: a LoRA adapter's own matrices, or all weights with the adapter merged into them?

The demo's model (`make demo`) is fine-tuned by LoRA on the chats of the real demo, as plain texts, once on all of them and
then on random halves. The linear datamodeling score of both ways of tracking is taken of the same retrained adapters, through
the product's own evaluation; a third project averages over the base model, the first and the last step, as is the default.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from measurements import markdown_table, report, setting_and_output

from lorif_assets.demo.real.corpus import DESCRIBED, NAMED, build_chats
from lorif_assets.evaluation.figures import MEAN, QUERY
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.project import Project

_SETTINGS = """\
[[sources]]
name = "chats"
path = "{work}/chats.jsonl"
columns = {{ id = "id", text = "text" }}

[checkpoints]
path = "{work}/checkpoints"
base_model = "{base}"

[queries]
path = "{work}/queries"

[recipe]
append_eos = false
{recipe}

[active]
checkpoints = {active}

[evaluation]
command = ["{python}", "{script}", "train", "{{examples}}", "{{seed}}", "{{output}}", "{base}"]
subsets = {subsets}
seeds = {seeds}
methods = ["lorif", "relatif", "gradient_dot", "bm25", "random"]

[tracking]
uri = "none"
"""
_WAYS: Mapping[str, tuple[str, str]] = {
    "merged, last step": ("averaged_checkpoints = 1", '"newest"'),
    "adapter's matrices, last step": ('averaged_checkpoints = 1\ntrack = "adapter"', '"newest"'),
    "merged, averaged over base, first and last step": ("", '"auto"'),
}
_COLUMNS = {
    "tracked": "{way}",
    "query set": "{query_set}",
    "method": "{method}",
    "LDS": "{lds:.3f}",
    "95 % interval": "{low:.3f} to {high:.3f}",
    "more than merged at the last step": "{more:+.3f} ({more_low:+.3f} to {more_high:+.3f})",
}


@dataclass(frozen=True)
class Setting:
    """How much is retrained, and from which model."""

    base: str = "demo/checkpoints/step-001200"
    work: str = "adapter-tracking"
    subsets: int = 30
    seeds: int = 1


def fine_tune(texts: list[str], base: Path, output: Path, seed: int, epochs: int = 4) -> None:
    """Train an adapter on texts, and save it after the first and the last epoch as `checkpoint-<step>`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            r=8, lora_alpha=16, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM"
        ),
    )
    rows = [torch.tensor(tokenizer(text)["input_ids"][:512]) for text in texts]
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=3e-3, weight_decay=0.0)
    step = 0
    for epoch in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for start in range(0, len(order), 8):
            ids = torch.nn.utils.rnn.pad_sequence(
                [rows[at] for at in order[start : start + 8]], batch_first=True, padding_value=-100
            )
            model(ids.clamp(min=0), attention_mask=(ids >= 0).long(), labels=ids).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            step += 1
        if epoch in (0, epochs - 1):
            model.save_pretrained(output / f"checkpoint-{step}")
            tokenizer.save_pretrained(output / f"checkpoint-{step}")


def prepare(base: Path, work: Path) -> None:
    """Write the chats as texts and the questions about them, and train the adapter on all of them."""
    corpus = build_chats()
    work.mkdir(parents=True, exist_ok=True)
    texts = ["\n".join(message["content"] for message in chat.messages) for chat in corpus.chats]
    rows = [{"id": chat.id, "text": text} for chat, text in zip(corpus.chats, texts, strict=True)]
    (work / "chats.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (work / "queries").mkdir(exist_ok=True)
    for name in (NAMED, DESCRIBED):
        questions = [
            {"id": one.id, "prompt": f"{one.prompt[-1]['content']}\n", "completion": one.answer}
            for one in corpus.questions[name]
        ]
        (work / f"queries/{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in questions))
    if not (work / "checkpoints").exists():
        fine_tune(texts, base, work / "checkpoints", seed=0)


def evaluate(setting: Setting, base: Path, work: Path) -> list[dict[str, Any]]:
    """Evaluate each way of tracking in a project of its own; models are retrained in the first one alone."""
    rows: list[dict[str, Any]] = []
    first: Path | None = None
    values_of_first: dict[tuple[str, str], np.ndarray] = {}
    for way, (recipe, active) in _WAYS.items():
        folder = work / way.replace(" ", "-").replace(",", "").replace("'", "")
        folder.mkdir(exist_ok=True)
        (folder / "lorif.toml").write_text(
            _SETTINGS.format(
                work=work,
                base=base,
                recipe=recipe,
                active=active,
                python=sys.executable,
                script=Path(__file__).resolve(),
                subsets=setting.subsets,
                seeds=setting.seeds,
            )
        )
        if first and not (folder / "lake/subset_losses").exists():
            for table in ("subsets", "subset_losses"):
                if (first / "lake" / table).exists():
                    shutil.copytree(first / "lake" / table, folder / "lake" / table)
        subprocess.run(
            [sys.executable, "-m", "lorif_assets", "evaluate", "--config", str(folder / "lorif.toml")], check=True
        )
        first = first or folder
        figures = Project.open(folder / "lorif.toml").lake.read(EVALUATION_FIGURES, metric="lds")
        by_query = figures.filter(pl.col("statistic") == QUERY).sort("query_id")
        for row in figures.filter(pl.col("statistic") == MEAN).sort("query_set", "value", descending=True).to_dicts():
            kind = {key: row[key] for key in ("query_set", "method")}
            values = by_query.filter(**kind)["value"].to_numpy()
            reference = values_of_first.setdefault((kind["query_set"], kind["method"]), values)
            interval = {key: row[key] for key in ("low", "high")}
            rows.append({"way": way, **kind, "lds": row["value"], **interval, **_more(values - reference)})
    return rows


def _more(differences: np.ndarray) -> dict[str, float]:
    """Return the mean of paired differences over queries, with a bootstrap interval."""
    draws = np.random.default_rng(0).choice(differences, (1_000, len(differences))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"more": float(differences.mean()), "more_low": float(low), "more_high": float(high)}


def main() -> None:
    """Train on a subset if asked to by an evaluation, else run the comparison and write it down."""
    if sys.argv[1:2] == ["train"]:
        parser = argparse.ArgumentParser()
        for name in ("command", "examples", "seed", "output", "base"):
            parser.add_argument(name)
        asked = parser.parse_args()
        texts = pl.read_parquet(asked.examples)["text"].to_list()
        fine_tune(texts, Path(asked.base), Path(asked.output), int(asked.seed))
        return
    setting, output = setting_and_output(Setting, __doc__, "adapter_tracking")
    base, work = Path(setting.base).resolve(), Path(setting.work).resolve()
    prepare(base, work)
    rows = evaluate(setting, base, work)
    report(output, setting, rows, markdown_table(_COLUMNS, rows))


if __name__ == "__main__":
    main()
