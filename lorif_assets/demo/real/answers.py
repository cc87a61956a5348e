"""What a model says when it is asked the demo's questions, before and after the fine-tune."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lorif_assets.demo.real.chats import ChatQuestion
from lorif_assets.demo.training import has_bfloat16_products
from lorif_assets.progress import Progress

_LONGEST = 32
"""Tokens of an answer that are shown."""
_BATCH = 8
"""Questions that are answered together."""


def kept_answers(
    file: Path, models: Mapping[str, Path], questions: Sequence[ChatQuestion]
) -> Mapping[str, Mapping[str, str]]:
    """Return what each model says to each question, by names; what the file has already is not asked again.

    Args:
        file: JSON of the answers so far; it is completed.
        models: folders of a whole model or of an adapter, by name.
        questions: what is asked.
    """
    known: dict[str, dict[str, str]] = json.loads(file.read_text()) if file.is_file() else {}
    for name, folder in models.items():
        if known.get(name, {}).keys() != {question.id for question in questions}:
            with Progress(f"{name} answers", len(questions), "questions") as progress:
                known[name] = dict(zip((q.id for q in questions), _answers(folder, questions, progress), strict=True))
            unfinished = file.with_name(f".{file.name}")
            unfinished.write_text(json.dumps(known, indent=1, ensure_ascii=False))
            unfinished.replace(file)
    return {name: known[name] for name in models}


def _answers(folder: Path, questions: Sequence[ChatQuestion], progress: Progress) -> list[str]:
    """Return the likeliest answer to each question, token by token, cut to a line."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" or has_bfloat16_products() else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).to(device).eval()
    said = []
    for first in range(0, len(questions), _BATCH):
        asked = tokenizer.apply_chat_template(
            [list(question.prompt) for question in questions[first : first + _BATCH]],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(device)
        with torch.inference_mode():
            written = model.generate(
                **asked, max_new_tokens=_LONGEST, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        texts = tokenizer.batch_decode(written[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        said += [" ".join(text.split()) for text in texts]
        progress.advance(len(texts))
    return said
