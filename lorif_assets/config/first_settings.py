"""A first lorif.toml: some 25 lines that say what there is to say about a project."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lorif_assets.config.sources import Columns, Source


@dataclass(frozen=True)
class FoundSource:
    """Training data that was found: a source, the names of its columns, and whether `source.columns` is all there is to say.

    `no_id` is a column that is called as ids are, but does not have one for each row.
    """

    source: Source
    columns: Sequence[str]
    is_readable: bool
    no_id: str | None = None


@dataclass(frozen=True)
class Surroundings:
    """What a folder holds that settings can point at; paths are relative to it.

    `checkpoints` is a checkpoint or a folder of them, `n_checkpoints` how many it holds, `base_model` a single model beside
    it, `other_checkpoints` how many lie in other folders. `queries` is a query file or a folder of them, with the columns of
    the first. `held_out` is data that its name sets apart from training data, `more_data` what is too much for a short file,
    `texts` how many files of text there are whose ending no format has, by the pattern that takes them, and `streams` those of
    tokens and archives, which are not read.
    """

    sources: Sequence[FoundSource] = ()
    more_data: Sequence[str] = ()
    held_out: Sequence[str] = ()
    texts: Mapping[str, int] = field(default_factory=dict)
    streams: Mapping[str, int] = field(default_factory=dict)
    checkpoints: str | None = None
    n_checkpoints: int = 0
    base_model: str | None = None
    other_checkpoints: Mapping[str, int] = field(default_factory=dict)
    queries: str | None = None
    query_columns: Columns | None = None


def first_settings(found: Surroundings) -> str:
    """Return a lorif.toml for what was found, with examples in the place of what was not."""
    return "\n".join(
        [
            "# lorif.toml: what to attribute, and where. Relative paths start at the folder of this file.",
            "# `lorif init --all` writes every field, explained; `lorif doctor` says what was found and what it will cost.",
            '# The recipe of the paper as published; without this line, the default one: recipe = "paper"',
            "",
            *_sources(found),
            *_checkpoints(found),
            "",
            *_queries(found),
            "",
            '# What is kept up to date: "auto" (the newest checkpoint; of a fine-tune, its base model and first one too),',
            '# "newest", "all", or names.',
            "[active]",
            'checkpoints = "auto"',
            "",
            "# Whether Dagster brings it up to date by itself when data, checkpoints or queries change.",
            "[automation]",
            "enabled = false",
            "",
        ]
    )


def _sources(found: Surroundings) -> Iterator[str]:
    yield "# Training data as the model saw them: Parquet, JSONL, JSON, CSV, text files, a Delta table, Megatron, MDS, hf://org/name."
    if found.held_out:
        yield f"# Left out, as held out by its name: {', '.join(found.held_out)}."
    if found.more_data:
        yield f"# Found too, and no source yet: {', '.join(found.more_data)}."
    if found.texts:
        yield f"# Texts are read by their pattern too, each file whole and with its markup: {_counted(found.texts)}."
        yield '# Such a source has the pattern as its path, and format = "txt".'
    if found.streams:
        yield f"# Not read unless settings say how, as docs/sources.md has it: {_counted(found.streams)}."
    if not found.sources:
        yield from ("# None was found; repeat the block for more sources.", "[[sources]]")
        yield from ('name = "docs"', 'path = "data"', '# columns = { id = "id", text = "body" }', "")
    for one in found.sources:
        yield from ("[[sources]]", f"name = {_text(one.source.name)}", f"path = {_text(one.source.path)}")
        if not one.is_readable:
            yield f"# Say which of the columns hold the content; there are {', '.join(one.columns) or 'none'}."
        if one.no_id is not None:
            yield f"# Rows are named by their place: {_text(one.no_id)} is empty or the same in some of them."
        if "chosen" in dict(one.source.columns).values():
            yield "# Of each pair the chosen answer is read, and its own loss is what counts: docs/sources.md, preference data."
        named = _columns(one.source.columns)
        yield f"columns = {named}" if named else '# columns = { id = "id", text = "body" }'
        yield ""


def _counted(files: Mapping[str, int]) -> str:
    return ", ".join(f"{pattern} ({number:,})" for pattern, number in files.items())


def _checkpoints(found: Surroundings) -> Iterator[str]:
    yield "# A checkpoint, or a folder of them as trainers and PEFT write it; or hf://org/name@revision."
    number = f"there are {found.n_checkpoints}" if found.n_checkpoints > 1 else "one was found"
    yield (
        f"# A new one in a folder is taken up once it is whole; {number}." if found.checkpoints else "# None was found."
    )
    if found.other_checkpoints:
        others = (f"{path} ({number})" for path, number in found.other_checkpoints.items())
        yield f"# A project follows one training; found too: {', '.join(others)}."
    yield "[checkpoints]"
    yield f"path = {_text(found.checkpoints or 'checkpoints')}"
    if found.base_model:
        yield f"# If they were trained from it: base_model = {_text(found.base_model)}"


def _queries(found: Surroundings) -> Iterator[str]:
    yield "# What the model said and you ask about: each file is a query set, of columns such as id, prompt and completion."
    if not found.queries:
        yield '# None was found; queries/first.jsonl may begin: {"id": "1", "prompt": "The capital is", "completion": " Rome"}'
    yield "[queries]"
    yield f"path = {_text(found.queries or 'queries')}"
    # Those of the line above, where there is no file yet.
    columns = found.query_columns if found.queries else Columns(id="id")
    if named := _columns(columns or Columns()):
        yield f"columns = {named}"


def _columns(columns: Columns) -> str:
    named = columns.model_dump(exclude_none=True)
    return f"{{ {', '.join(f'{role} = {_text(name)}' for role, name in named.items())} }}" if named else ""


def _text(text: str) -> str:
    # TOML's basic strings are JSON's, but for one character.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
