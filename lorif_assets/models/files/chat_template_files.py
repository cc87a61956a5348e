"""The files of chat templates: beside a tokenizer's default one, `save_pretrained` writes a folder with one file for each."""

from collections.abc import Iterable
from pathlib import Path

NAMED_TEMPLATES = "additional_chat_templates"
"""The folder's name."""
_LONGEST = 1 << 24


def named_templates(folder: Path) -> list[Path]:
    """Return the files of the named chat templates of a tokenizer's folder, sorted by name."""
    return sorted(file for file in (folder / NAMED_TEMPLATES).glob("*.jinja") if file.is_file())


def tells_turns_otherwise(files: Iterable[Path]) -> bool:
    """Whether a tokenizer's files hold a template of whose turns an earlier version may have found a part alone, or too much.

    It did so of calls where a template writes no generation prompt, of answers where one writes more between that and
    them, as gpt-oss's (channels) and GLM's (an empty thought), of calls with whose results they are written, as by
    Gemma 4's, and of answers where one always writes the next prompt, as Llama 3's of its first days.
    """
    sources = (_beginning(file) for file in files if file.suffix == ".jinja" or file.name == "tokenizer_config.json")
    return any(map(_is_told_otherwise, sources))


def _is_told_otherwise(source: str) -> bool:
    if "add_generation_prompt" not in source:
        return "tool_calls" in source or ">assistant" in source.rpartition("endfor")[2]
    return any(written in source for written in ("<|channel|>", "<think></think>", "<|tool_response>"))


def _beginning(file: Path) -> str:
    # Files of strangers are looked at before their sizes are.
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(_LONGEST)
