"""Training steps as people write them: in the names of folders, in a trainer's state, in the tags of a registry."""

import json
import re
from collections.abc import Collection
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

TRAINER_STATE = "trainer_state.json"
_LARGEST = 2**63 - 1
_NUMBER = r"\d+(?:\.\d+)?(?:e\+?\d{1,2}(?![a-z0-9]))?(?:[km](?![a-z0-9]))?"
# Not in arbiter and writer.
_MARK = r"(?:steps?|checkpoint|ckpt|(?<![a-z])iter(?:ation)?s?)"
_MARKED = re.compile(rf"{_MARK}[-_=:. ]*({_NUMBER})", re.IGNORECASE | re.ASCII)
_STAGE = re.compile(r"(?:stage|phase)[-_=:. ]*(\d+)", re.IGNORECASE | re.ASCII)
_EPOCH = re.compile(r"epochs?[-_=:. ]*(\d+)", re.IGNORECASE | re.ASCII)
_TAG = re.compile(rf"(?:(?:global[-_ ]?)?{_MARK}[-_=:. ]*)?({_NUMBER})(?: *steps?)?", re.IGNORECASE | re.ASCII)
_NUMBERS = re.compile(rf"(?<![a-z0-9.]){_NUMBER}(?![a-z0-9])|\d+", re.IGNORECASE | re.ASCII)
_AT_END = re.compile(rf"(?<![a-z0-9.])({_NUMBER})$", re.IGNORECASE | re.ASCII)
# What a model is called that was saved after the last step.
_FINAL = re.compile(
    r"(?:.*[-_.])?(?:(?:final|latest)(?:[-_.].*)?|last(?:[-_.]?(?:checkpoint|ckpt|model|steps?|epochs?|weights))?)",
    re.IGNORECASE,
)
_CLOCK = r"(?:[01]\d|2[0-3])[-_.:]?[0-5]\d(?:[-_.:]?\d\d(?:\.\d+)?)?(?:z|[-+]\d\d:?\d\d)?"
_DAY = r"(?:0[1-9]|[12]\d|3[01])"
_WHOLE_DAY = rf"(?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\1{_DAY}"
_SHORT_DAY = rf"(?:\d\d(?:0[1-9]|1[0-2])|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[-_ ]?){_DAY}"
# What is a time in one name is no step in the others of its form, and what is none there is none in any.
_DATES = tuple(
    re.compile(rf"(?<![a-z0-9])(?:{date})(?![a-z0-9])", re.IGNORECASE | re.ASCII)
    for date in (rf"{_WHOLE_DAY}[-_. t]?{_CLOCK}", rf"{_SHORT_DAY}[-_. t]{_CLOCK}", _WHOLE_DAY)
)
# What a model of a step is called that is there once more in another form.
_OTHER_FORM = re.compile(
    r"[-_.](?:awq|gptq|gguf|bnb|fp8|nvfp4|mxfp4|int[48]|[48]bits?|w\d+a\d+|q\d(?:_\w+)?|quantized|onnx|mlx)(?![a-z0-9])",
    re.IGNORECASE,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GROUPED = re.compile(r"\d{1,3}(?:[,_]\d{3})+", re.ASCII)
_UNITS = {"k": 1_000, "m": 1_000_000}


def step_in_text(text: str) -> int | None:
    """Return the step that a text says and nothing else (`2000`, `1e3`, `1000.0`, `1,000`, `step-2000`, `10k`), or None."""
    text = text.strip()
    if _GROUPED.fullmatch(text):
        return int(re.sub(r"[,_]", "", text))
    found = _TAG.fullmatch(text)
    return _whole(found[1]) if found else None


def step_of_folder(folder: Path, siblings: Collection[str] = ()) -> int | None:
    """Return the step of a folder: what its name marks as one, else what the trainer's state says, else `step_in_name`."""
    state = None if is_marked(folder.name) else trainer_step(folder)
    return step_in_name(folder.name, siblings) if state is None else state


def step_in_name(name: str, siblings: Collection[str] = ()) -> int | None:
    """Return the step that a name says, among the names beside it.

    Marked are numbers after `step`, `checkpoint`, `ckpt` or `iter`, as in `epoch=2-step=1e3` or `global_step500`. Else it is
    the number of its epoch where others of its form have another, the last number by which it differs from those, the
    number of its epoch, or the one that it ends with. No step are the number in the name of a model (`llama-3-final`,
    `opt-125m`; `phi-2` beside `phi-2-tuned` or `checkpoint-20`), a date, by which names are in order as they are, that of a
    model which was saved at the end (`final-2` beside `checkpoint-20`), and the digits of a commit, by which the hub's cache
    names folders.
    """
    if (marked := _marked(name)) is not None or _COMMIT.fullmatch(name):
        return marked
    others = [other for other in siblings if other != name]
    epoch = _EPOCH.search(name)
    numbered = [other for other in others if not says_final(other) and _NUMBERS.search(other)]
    if says_final(name) and not (epoch and all(map(_EPOCH.search, numbered))) and numbered:
        return None
    alike = [other for other in siblings if _form(other) == _form(name)]
    dates = next((dates for dates in _DATES if all(map(dates.search, [name, *alike]))), None)
    if dates is not None:
        if not epoch and not _follow_days([name, *alike], dates):
            return None
        name, alike = dates.sub("", name), [dates.sub("", other) for other in alike]
        siblings = [dates.sub("", other) for other in siblings]
    if epoch and any(_EPOCH.findall(other)[:1] != [epoch[1]] for other in alike):
        return _whole(epoch[1])
    numbers = [_NUMBERS.findall(other) for other in alike]
    told = [number for k, number in enumerate(_NUMBERS.findall(name)) if any(other[k] != number for other in numbers)]
    if whole := [step for number in told if (step := _whole(number)) is not None]:
        return whole[-1]
    is_of_model = not _NUMBERS.fullmatch(name) and any(
        other.startswith(name) or is_marked(other) for other in siblings if other != name
    )
    said = epoch or (None if is_of_model else _AT_END.search(name))
    # With a unit behind other words, it is the size of a model.
    is_size = said is not None and said[1][-1].lower() in _UNITS and said[1] != name
    return _whole(said[1]) if said and not is_size else None


def stage_in_name(name: str) -> int | None:
    """Return the stage of training that a name says, as `stage2-ingredient1-step1000` does, or None."""
    found = _STAGE.search(name)
    return _whole(found[1]) if found else None


def says_final(name: str) -> bool:
    """Whether a folder's name says that its model was saved after the last step."""
    return _FINAL.fullmatch(name) is not None


def says_other_form(name: str) -> bool:
    """Whether a folder's name says that its model is one that is there in full too, quantised: `checkpoint-60-awq`."""
    return _OTHER_FORM.search(name) is not None


def is_marked(name: str) -> bool:
    """Whether a folder's name says that it is a training step, as `checkpoint-20` does."""
    return _marked(name) is not None


def counts_epochs(folder: Path) -> bool:
    """Whether the number that stands for a folder's step counts epochs: `epoch_3`."""
    return _marked(folder.name) is None and trainer_step(folder) is None and bool(_EPOCH.search(folder.name))


def trainer_step(folder: Path) -> int | None:
    """Return `global_step` of the trainer's state that a folder holds; None if it holds none that can be read."""
    file = folder / TRAINER_STATE
    if not file.is_file():
        return None
    state = file.stat()
    return _global_step(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _global_step(file: Path, modified: int, size: int) -> int | None:
    del modified, size  # A state that was written since is another one.
    try:
        step = json.loads(file.read_text())["global_step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) and 0 <= step <= _LARGEST else None


def _marked(name: str) -> int | None:
    numbers = [number for found in _MARKED.findall(name) if (number := _whole(found)) is not None]
    return numbers[-1] if numbers else None


def _follow_days(names: Collection[str], dates: re.Pattern[str]) -> bool:
    """Whether the last numbers of names with dates grow with these; those that count within a day do not."""
    found = [(dates.search(name), _NUMBERS.findall(dates.sub("", name))[-1:]) for name in names]
    dated = sorted((day[0], _whole(number[0]) or 0) for day, number in found if day and number)
    return all(earlier[1] < later[1] for earlier, later in pairwise(dated) if earlier[0] != later[0])


def _form(name: str) -> str:
    # By what no name can hold.
    return _NUMBERS.sub("\0", name)


def _whole(number: str) -> int | None:
    unit = _UNITS.get(number[-1].lower(), 1)
    value = Decimal(number.rstrip("kKmM")) * unit
    return int(value) if value <= _LARGEST and value == value.to_integral_value() else None
