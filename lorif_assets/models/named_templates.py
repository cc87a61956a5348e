"""Chat templates beside a tokenizer's default one, as `save_pretrained` writes them: a folder with one file for each."""

from pathlib import Path

NAMED_TEMPLATES = "additional_chat_templates"
"""The folder's name."""


def named_templates(folder: Path) -> list[Path]:
    """Return the files of the named chat templates of a tokenizer's folder, sorted by name."""
    return sorted(file for file in (folder / NAMED_TEMPLATES).glob("*.jinja") if file.is_file())
