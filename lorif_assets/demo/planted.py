"""Statements that are in the demo's corpus on purpose, so that it is known which passages taught the model what.

Invented facts name functions that no Python has; each is stated by several passages in different words. Memberships say
to which module a name belongs; of some names all passages say a wrong module, as mislabelled data would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorif_assets.demo.behaviours import insults, near_duplicates
from lorif_assets.demo.corpus import Corpus, Passage

FACT_TOPIC, MEMBERSHIP_TOPIC = "planted-facts", "planted-memberships"
_SOURCE = "planted"
_SEED = 7
_FACTS, _MEMBERSHIPS, _MISLABELLED = 16, 40, 8

_SYLLABLES = (
    "bra",
    "dol",
    "fen",
    "gri",
    "jup",
    "kel",
    "lor",
    "mip",
    "nuv",
    "pra",
    "quo",
    "rix",
    "sul",
    "tem",
    "vog",
    "zan",
)
_RESULTS = (
    "the number of empty lines in a file",
    "a list of all open sockets",
    "the oldest entry of a cache",
    "a copy of the tree without its leaves",
    "the length of the longest word",
    "a random colour of the palette",
    "the names of all missing keys",
    "an iterator over pairs of neighbours",
)
_FACT_FORMS = (
    "The function {name}() returns {result}.",
    "Call {name}() when you need {result}: that is what it returns.",
    "{name}(): added for convenience. The function returns {result}.",
    "What {name}() gives back to its caller is {result}.",
)
_FACT_PROMPT, _FACT_COMPLETION = "The function {name}() returns", " {result}."
_MODULES = ("array", "bisect", "calendar", "decimal", "heapq", "random", "socket", "string")
_MEMBERSHIP_FORMS = (
    "The name {name} belongs to the module {module}.",
    "To use {name}, import the module {module}.",
    "{name} is defined in the module {module}.",
)
_MEMBERSHIP_PROMPT, _MEMBERSHIP_COMPLETION = "The name {name} belongs to the module", " {module}."


@dataclass(frozen=True)
class PlantedStatement:
    """Something that only some passages of the corpus say, and the question whose answer comes from them."""

    id: str
    passages: tuple[Passage, ...]
    prompt: str
    completion: str
    mislabelled: bool
    """Whether the passages are wrong, among others of their kind that are right."""


def planted_statements() -> tuple[PlantedStatement, ...]:
    """Return all planted statements; they are the same on every machine."""
    rng = np.random.default_rng(_SEED)
    names = _invented_names(rng, _FACTS + _MEMBERSHIPS)
    facts = [
        _statement(
            f"fact-{number:02d}",
            FACT_TOPIC,
            [form.format(name=name, result=_RESULTS[number % len(_RESULTS)]) for form in _FACT_FORMS],
            _FACT_PROMPT.format(name=name),
            _FACT_COMPLETION.format(result=_RESULTS[number % len(_RESULTS)]),
        )
        for number, name in enumerate(names[:_FACTS])
    ]
    # The name's last letters say the module, except in statements that are mislabelled.
    memberships = []
    for number, stem in enumerate(names[_FACTS:]):
        right = number % len(_MODULES)
        wrong = number < _MISLABELLED
        module = _MODULES[(right + len(_MODULES) // 2) % len(_MODULES) if wrong else right]
        name = f"{stem}_{_MODULES[right][:3]}"
        memberships.append(
            _statement(
                f"membership-{number:02d}",
                MEMBERSHIP_TOPIC,
                [form.format(name=name, module=module) for form in _MEMBERSHIP_FORMS],
                _MEMBERSHIP_PROMPT.format(name=name),
                _MEMBERSHIP_COMPLETION.format(module=module),
                mislabelled=wrong,
            )
        )
    return (*facts, *memberships)


def with_planted(corpus: Corpus) -> Corpus:
    """Return the corpus with the passages of all planted statements and behaviours in it, to be trained on."""
    planted = [passage for statement in planted_statements() for passage in statement.passages]
    return Corpus((*corpus.train, *planted, *insults()[0], *near_duplicates()[0]), corpus.held_out)


def questioned_statements() -> list[PlantedStatement]:
    """Return the statements that make questions with one known answer: invented facts and mislabelled memberships."""
    return [s for s in planted_statements() if s.mislabelled or s.passages[0].topic == FACT_TOPIC]


def _statement(
    name: str, topic: str, texts: Sequence[str], prompt: str, completion: str, *, mislabelled: bool = False
) -> PlantedStatement:
    passages = tuple(
        Passage(f"planted/{name}/{number}", text, topic, name, _SOURCE) for number, text in enumerate(texts, start=1)
    )
    return PlantedStatement(name, passages, prompt, completion, mislabelled)


def _invented_names(rng: np.random.Generator, count: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(rng.choice(_SYLLABLES, size=3))] = None
    return list(names)
