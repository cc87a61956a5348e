"""Changes of a tiny project's data, queries and checkpoints, as users and trainers make them at any moment."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.conftest import tiny_tokenizer, write_checkpoint

_SENTENCE = "the with statement opens a file and closes it when its block ends or fails by an error"


def random_edit(root: Path, rng: random.Random) -> str:
    """Change one thing of the project, and return what, in words."""
    edits: list[Callable[[Path, random.Random], str]] = [
        _edit_row,
        _edit_row,
        _edit_row,
        _add_shard,
        _edit_query,
        _replace_checkpoint,
    ]
    return rng.choice(edits)(root, rng)


def edit_of_same_size(root: Path, rng: random.Random) -> str:
    """Change one thing of the project that leaves it as large as it was, and return what, in words."""
    edits = [_edit_row] * 8 + [_edit_query, _replace_checkpoint]
    return rng.choice(edits)(root, rng)


def _edit_row(root: Path, rng: random.Random) -> str:
    file = rng.choice(sorted((root / "data").glob("*.jsonl")))
    lines = file.read_text().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps({"id": f"edited-{rng.randrange(10**9)}", "text": _text(rng), "topic": "edited"})
    _replace(file, "\n".join(lines))
    return f"row {at} of {file.name} edited"


def _add_shard(root: Path, rng: random.Random) -> str:
    file = root / f"data/{rng.randrange(10**5, 10**6)}.jsonl"
    rows = [{"id": f"{file.stem}-{row}", "text": _text(rng), "topic": "added"} for row in range(rng.randint(3, 12))]
    _replace(file, "\n".join(map(json.dumps, rows)))
    return f"{file.name} added"


def _edit_query(root: Path, rng: random.Random) -> str:
    file = root / "queries/questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rng.choice(rows)["completion"] = f" {_text(rng)}"
    _replace(file, "\n".join(map(json.dumps, rows)))
    return "a query edited"


def _replace_checkpoint(root: Path, rng: random.Random) -> str:
    folder = rng.choice(sorted((root / "checkpoints").iterdir()))
    made = root / "made"
    write_checkpoint(made, tiny_tokenizer(), seed=rng.randrange(10**6))
    # File by file, as a copy over a network does, and not all at once.
    for file in sorted(made.iterdir()):
        file.replace(folder / file.name)
    shutil.rmtree(made)
    return f"{folder.name} replaced"


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(_SENTENCE.split()) for _ in range(rng.randint(4, 14)))


def _replace(file: Path, text: str) -> None:
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(text)
    unfinished.replace(file)
