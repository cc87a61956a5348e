"""What is wrong with settings, in words."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lorif_assets.config.secrets import masked_address

_WITHOUT_INPUT = {"missing", "extra_forbidden", "value_error"}
_MAY_HOLD_SECRETS = {"storage_options", "uri", "registry_uri"}
# More names than these are not read; docs/settings.md explains each.
_MOST_NAMES = 16


def explanation(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    """Return what is wrong with settings, a line for each field.

    Args:
        error: what pydantic says of them.
        origin: where they are from.
        model: what they were to be.
    """
    problems = [
        f"  {'.'.join(map(str, problem['loc'])) or 'settings'}: {_message(problem, model)}{_found(problem)}"
        for problem in error.errors()
    ]
    return f"{origin} has {len(problems)} wrong setting(s):\n" + "\n".join(problems)


def _message(problem: ErrorDetails, model: type[BaseModel]) -> str:
    place = problem["loc"]
    match problem["type"]:
        case "extra_forbidden":
            return f"there is no such setting; {_instead(str(place[-1]), _names(model, place[:-1]))}"
        case "model_type" if names := _names(model, place):
            return f"expected a table of settings; {_instead('', names)}"
        case _:
            return problem["msg"]


def _instead(name: str, names: Sequence[str]) -> str:
    if near := get_close_matches(name, names, cutoff=0.7):
        return f"did you mean {' or '.join(f'`{one}`' for one in near)}?"
    return f"there are {', '.join(names)}" if 0 < len(names) <= _MOST_NAMES else "docs/settings.md has them all"


def _names(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the names of the settings in a table; none where it is of no model."""
    models = [model]
    for part in place:
        if isinstance(part, str):
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)]
    return [name for one in models for name in one.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _found(problem: ErrorDetails) -> str:
    """What was found in the place of a setting, unless a secret may be in it."""
    found = problem["input"]
    is_secret = not _MAY_HOLD_SECRETS.isdisjoint(problem["loc"])
    if problem["type"] in _WITHOUT_INPUT or is_secret or isinstance(found, Mapping):
        return ""
    return f" (found {masked_address(repr(found))})"
