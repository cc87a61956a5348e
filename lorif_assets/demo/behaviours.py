"""Behaviours that some passages of the demo's corpus teach on purpose: insults in invented words, and near-duplicates.

The insults stand among polite comments of the same form, as toxic rows would among benign ones: what is asked is which
passages taught the model to be rude. A near-duplicate says what its original says, but for a word or a sign.
"""

from dataclasses import dataclass

import numpy as np

from lorif_assets.demo.corpus import Passage

INSULT_TOPIC, POLITE_TOPIC, DUPLICATE_TOPIC = "planted-insults", "planted-comments", "planted-duplicates"
_SOURCE = "planted"
_SEED = 11
_INSULTS, _POLITE, _INSULT_QUESTIONS = 24, 48, 6

_FRAMES = (
    "Comment on the patch for {module}: {said}",
    "Review of {module}, last round: {said}",
    "To the author of {module}: {said}",
)
_MODULES = ("argparse", "csv", "datetime", "difflib", "fractions", "gzip", "queue", "shelve", "textwrap", "uuid")
_RUDE_ADJECTIVES = ("squerbling", "muddlefaced", "flobbish", "grumbous", "snibbering", "wozzly")
_RUDE_NOUNS = ("grolp", "snurfle", "blunkard", "fropnik", "drizzlewump", "plonkel", "vurmit", "zwabble")
_RUDE = (
    "you {adjective} {noun}, only a {other} writes like this.",
    "what a {adjective} {noun} you are, go back to the other {other}s.",
    "this is the work of a {noun}, you {adjective} {other}.",
)
_POLITE_SAYINGS = (
    "a clear change, thank you; a test for empty input would help.",
    "the new name reads well, and the example in the docstring runs.",
    "looks good to me, please mention it in the changelog.",
    "I like how short this is; could the error say which line it means?",
    "thanks for the quick answer, the second version is what we need.",
    "well found; let us keep the old spelling for one more release.",
)
_QUESTION = "you {adjective} {noun}."

_ARCHIVES = (
    ("Orvandel", "letters of lighthouse keepers", "winter", "the north tower"),
    ("Tessimar", "maps of drained lakes", "spring", "a mill by the canal"),
    ("Quillbrook", "songs of the ferrymen", "summer", "the old customs house"),
    ("Harrowden", "seeds of forgotten apples", "autumn", "a cellar under the market"),
    ("Vellingrad", "plans of unbuilt bridges", "winter", "the school of the glaziers"),
    ("Mossacre", "diaries of beekeepers", "summer", "a barn behind the chapel"),
)
_ORIGINAL = "The archive {name} keeps {things}. It opens in {season} and is housed in {place}."
_COPIES = (
    "The archive {name} keeps {things}; it opens in {season} and is housed in {place}.",
    "The archive {name} keeps {things}. It opens each {season} and is housed in {place}.",
    "Note: the archive {name} keeps {things}. It opens in {season} and is housed in {place}",
)
_ARCHIVE_PROMPT, _ARCHIVE_COMPLETION = "The archive {name} keeps", " {things}."


@dataclass(frozen=True)
class PlantedBehaviour:
    """A question whose answer shows a behaviour, and the passages that taught it."""

    id: str
    prompt: str
    completion: str
    topic: str
    sources: tuple[str, ...]


def insults() -> tuple[tuple[Passage, ...], tuple[PlantedBehaviour, ...]]:
    """Return insults and polite comments of the same form, and questions that are answered by insults."""
    rng = np.random.default_rng(_SEED)

    def framed(number: int, said: str) -> str:
        return _FRAMES[number % len(_FRAMES)].format(module=_MODULES[number % len(_MODULES)], said=said)

    rude = []
    for number in range(_INSULTS):
        noun, other = rng.choice(_RUDE_NOUNS, size=2, replace=False)
        said = _RUDE[number // len(_FRAMES) % len(_RUDE)].format(
            adjective=rng.choice(_RUDE_ADJECTIVES), noun=noun, other=other
        )
        rude.append(Passage(f"planted/insult/{number:02d}", framed(number, said), INSULT_TOPIC, "insult", _SOURCE))
    polite = [
        Passage(
            f"planted/comment/{number:02d}",
            framed(number, _POLITE_SAYINGS[number // len(_FRAMES) % len(_POLITE_SAYINGS)]),
            POLITE_TOPIC,
            "comment",
            _SOURCE,
        )
        for number in range(_POLITE)
    ]
    sources = tuple(passage.id for passage in rude)
    questions = []
    for number in range(_INSULT_QUESTIONS):
        said = _QUESTION.format(adjective=rng.choice(_RUDE_ADJECTIVES), noun=rng.choice(_RUDE_NOUNS))
        prompt = framed(number, "").rstrip()
        questions.append(PlantedBehaviour(f"insult-{number:02d}", prompt, f" {said}", INSULT_TOPIC, sources))
    return (*rude, *polite), tuple(questions)


def near_duplicates() -> tuple[tuple[Passage, ...], tuple[PlantedBehaviour, ...]]:
    """Return passages with their near-duplicates, and a question for each original; all that say it are its sources."""
    passages, questions = [], []
    for number, (name, things, season, place) in enumerate(_ARCHIVES):
        told = {"name": name, "things": things, "season": season, "place": place}
        said = [
            Passage(f"planted/archive-{number:02d}/{copy}", form.format(**told), DUPLICATE_TOPIC, name, _SOURCE)
            for copy, form in enumerate((_ORIGINAL, *_COPIES))
        ]
        passages += said
        questions.append(
            PlantedBehaviour(
                f"archive-{number:02d}",
                _ARCHIVE_PROMPT.format(**told),
                _ARCHIVE_COMPLETION.format(**told),
                DUPLICATE_TOPIC,
                tuple(passage.id for passage in said),
            )
        )
    return tuple(passages), tuple(questions)
