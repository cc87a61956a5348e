"""What describes a checkpoint, a configuration and a tokenizer, as a stranger may have written it: refused in words."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorif_assets.config.limits import MIB, CheckpointLimits
from lorif_assets.errors import CheckpointError, LorifError
from lorif_assets.lake.unreadable import panics_as_errors

# Of GPT-2, Llama, Mixtral, DeepSeek and their kin.
_COUNTS = re.compile(r"(n|num)_(\w+_)?(layers?|experts?|blocks)|\w+_layers|depth", re.IGNORECASE)

# Of a kind that it does not know, transformers lists all that it knows.
_EVERY_KIND = re.compile(r"\s*Model type should be one of .*", re.DOTALL)
_CODE_ADVICE = (
    ". It carries Python code of its own, which is not run: where you have read it and trust it, set "
    "`checkpoints.trust_remote_code = true`"
)


@contextmanager
def refused_in_words(what: str) -> Iterator[None]:
    """Say in one way that a checkpoint's files are not what a library takes: what it raises then is of any kind.

    Raises:
        CheckpointError: something was raised inside that is no error of ours.
    """
    try:
        with panics_as_errors():
            yield
    except LorifError:
        raise
    except Exception as error:
        said = _EVERY_KIND.sub("", str(error)) or type(error).__name__
        advice = _CODE_ADVICE if "trust_remote_code" in said else ""
        raise CheckpointError(f"{what}: {said}{advice}") from error


def refuse_large(files: Iterable[Path], limits: CheckpointLimits) -> None:
    """Refuse files that are larger than one may be that describes a checkpoint; those that are not there are left out.

    Raises:
        CheckpointError: one is.
    """
    for file in files:
        if file.is_file() and (size := file.stat().st_size) > limits.description_mib * MIB:
            raise _beyond(file, f"has {size:,} bytes", "description_mib", limits)


def refuse_many_layers(config: Path, limits: CheckpointLimits) -> None:
    """Refuse a configuration of more layers or experts than there may be: transformers makes an object of each.

    Raises:
        CheckpointError: it is one.
        OSError, ValueError, RecursionError: it cannot be read.
    """
    for name, value in _numbers(json.loads(config.read_text())):
        if value > limits.layers and _COUNTS.fullmatch(name):
            raise _beyond(config, f"has {name} = {value:,}", "layers", limits)


def refuse_growing_texts(tokenizer: Path, limits: CheckpointLimits) -> None:
    """Refuse a tokenizer whose replacements, one after another, would make a text longer than memory is.

    Forty of them that double it make a TiB of one letter.

    Raises:
        CheckpointError: it is one.
        OSError, ValueError, RecursionError: it cannot be read.
    """
    content = json.loads(tokenizer.read_text()) if tokenizer.is_file() else {}
    for stage in ("normalizer", "decoder"):
        growth = math.prod(_replacements(content.get(stage))) if isinstance(content, dict) else 1
        if growth > limits.text_growth:
            raise _beyond(
                tokenizer, f"has a {stage} that may make a text {growth:,} times as long", "text_growth", limits
            )


def _replacements(stage: Any) -> Iterator[int]:
    """Yield the lengths of what the stages inside one put in the place of a match."""
    if isinstance(stage, list):
        for inner in stage:
            yield from _replacements(inner)
    elif isinstance(stage, dict):
        if isinstance(text := stage.get("content"), str):
            yield max(len(text), 1)
        for inner in stage.values():
            if isinstance(inner, list):
                yield from _replacements(inner)


def _numbers(value: Any) -> Iterator[tuple[str, int]]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, int):
            yield name, inner
        else:
            yield from _numbers(inner)


def _beyond(file: Path, found: str, setting: str, limits: CheckpointLimits) -> CheckpointError:
    return CheckpointError(
        f"{file} {found}, and `checkpoints.limits.{setting}` = {getattr(limits, setting)} allows no more. Where the checkpoint "
        "is what it should be, raise that limit."
    )
