"""What is wrong with settings, in words."""

from collections.abc import Iterator, Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lorif_assets.config.secrets import masked_address

_WITHOUT_INPUT = {"missing", "extra_forbidden", "value_error"}
_MAY_HOLD_SECRETS = {"storage_options", "uri", "registry_uri"}
_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "FromEnvironment": '{ env = "NAME" }'}
# More names than these are not read; docs/settings.md explains each.
_MOST_NAMES = 16


def explanation(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    """Return what is wrong with settings, a line for each field.

    Args:
        error: what pydantic says of them.
        origin: where they are from.
        model: what they were to be.
    """
    by_place: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for problem in error.errors():
        place = tuple(part for part in problem["loc"] if not _is_kind(part))
        by_place.setdefault(place, []).append(problem)
    # Of the kinds of value that a setting may have, the one that was meant is that which fails deepest in it.
    deeper = {place[:n] for place in by_place for n in range(len(place))}
    by_place = {place: found for place, found in by_place.items() if place not in deeper}
    lines = [
        f"  {'.'.join(map(str, place)) or 'settings'}: {_message(place, problems, model)}{_found(problems[0])}"
        for place, problems in by_place.items()
    ]
    return f"{origin} has {len(lines)} wrong setting(s):\n" + "\n".join(lines)


def _is_kind(part: int | str) -> bool:
    """Whether a part of a place is no setting, but one of the kinds of value that a setting may have."""
    return isinstance(part, str) and (part in _KINDS or part.startswith("constrained-") or "[" in part)


def _message(place: Sequence[int | str], problems: Sequence[ErrorDetails], model: type[BaseModel]) -> str:
    problem, *others = problems
    if others:
        kinds = [_kind(str(one["loc"][-1]), one["msg"]) for one in problems]
        return f"expected {' or '.join(dict.fromkeys(filter(None, kinds)))}"
    is_list = isinstance(problem["input"], list)
    match problem["type"]:
        case "extra_forbidden":
            return f"there is no such setting; {_instead(str(place[-1]), _names(model, place[:-1]))}"
        case "model_type" if is_list:
            return f"expected one table: write `[{place[-1]}]`, not `[[{place[-1]}]]`"
        case "model_type" if names := _names(model, place):
            return f"expected a table of settings; {_instead('', names)}"
        case "tuple_type":
            return f"expected a list{f' of tables: write `[[{place[-1]}]]` above each' if _names(model, place) else ''}"
        case _:
            return problem["msg"]


def _kind(name: str, message: str) -> str:
    """Return one of the kinds of value that a setting may have, in words; nothing for one that others say too."""
    if name.startswith("constrained-"):
        words = message.removeprefix("Input should be ")
        return words.partition(",")[0] if words.startswith("a ") else f"a number {words}"
    if not name.startswith(("tuple", "list")) and name not in _KINDS:
        return message.removeprefix("Input should be ") if message.startswith("Input should be '") else ""
    if name.startswith(("tuple", "list")):
        return "a list"
    return _KINDS.get(name, "")


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
    if problem["type"] in _WITHOUT_INPUT or is_secret or not isinstance(found, str | int | float | date):
        return ""
    return f" (found {masked_address(repr(found))})"
