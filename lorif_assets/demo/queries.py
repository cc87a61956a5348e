"""The demo's questions: statements about Python, with the topics of the corpus that they are about."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lorif_assets.demo.behaviours import insults, near_duplicates
from lorif_assets.demo.corpus import Passage
from lorif_assets.demo.planted import questioned_statements
from lorif_assets.errors import SourceError

INSULTS, NEAR_DUPLICATES = "insults", "near-duplicates"
_HELD_OUT_QUERIES = 50


@dataclass(frozen=True)
class DemoQuery:
    """A prompt, and the completion whose training passages are to be found."""

    id: str
    prompt: str
    completion: str
    topics: tuple[str, ...]
    """Topics whose passages count as being about the query."""
    sources: tuple[str, ...] = ()
    """Ids of the passages that are known to have taught the completion, where that is known."""


_QUERIES = (
    DemoQuery(
        "with-statement",
        'When the block under a "with" statement ends, whether normally or through an error, Python calls',
        ' the "__exit__()" method of the context manager.',
        ("with", "context-managers", "contextlib"),
    ),
    DemoQuery(
        "try-finally",
        'In a "try" statement, the code in the "finally" clause',
        " is executed even if an exception was raised and no handler caught it.",
        ("try", "raise", "exceptions"),
    ),
    DemoQuery(
        "lambda",
        'The keyword "lambda" makes a small function without a name; the value it returns is',
        " the result of the expression after the colon.",
        ("lambda", "function", "calls"),
    ),
    DemoQuery(
        "import-system",
        'The first time that an "import" statement names a module, Python',
        " finds a loader for it, executes the module and stores it in sys.modules.",
        ("import", "importlib", "pkgutil", "zipimport"),
    ),
    DemoQuery(
        "floor-division",
        "Dividing two integers with the // operator gives",
        " an integer rounded down, while the / operator gives a floating point number.",
        ("binary", "numeric-types", "operator-summary"),
    ),
    DemoQuery(
        "descriptors",
        "If the class of an object defines an attribute that is a data descriptor, reading the attribute calls",
        ' the "__get__()" method of the descriptor instead of looking in the instance dictionary.',
        ("attribute-access", "attribute-references"),
    ),
    DemoQuery(
        "string-format",
        "In a format string, a replacement field in curly braces may have a colon and after it",
        " a format specification with the width, the alignment and the precision of the value.",
        ("formatstrings", "string-methods", "string"),
    ),
    DemoQuery(
        "slicing",
        "A slice of a list with a start and a stop index is",
        " a new list of the items from the start up to, but not including, the stop.",
        ("slicings", "subscriptions", "typesseq", "typesseq-mutable", "sequence-types"),
    ),
    DemoQuery(
        "json",
        "To turn a Python object that json does not know into JSON text, pass",
        " a subclass of JSONEncoder whose default() method returns a serializable object.",
        ("json",),
    ),
    DemoQuery(
        "regular-expressions",
        "To find every place where a regular expression matches in a string, compile the pattern and call",
        " findall(), which returns a list of all matches that do not overlap.",
        ("re",),
    ),
)


def demo_queries(corpus_topics: Collection[str]) -> tuple[DemoQuery, ...]:
    """Return the queries with those of their topics that the corpus has: Python versions differ in a few.

    Raises:
        SourceError: the corpus has none of a query's topics.
    """
    queries = tuple(
        replace(query, topics=tuple(topic for topic in query.topics if topic in corpus_topics)) for query in _QUERIES
    )
    for query, declared in zip(queries, _QUERIES, strict=True):
        if not query.topics:
            raise SourceError(
                f"the demo's query {query.id!r} is about {', '.join(declared.topics)}, but none of these topics "
                f"is among the corpus's {len(corpus_topics)}: build it with a full CPython installation, 3.11 or newer"
            )
    return queries


def held_out_queries(held_out: Sequence[Passage]) -> list[DemoQuery]:
    """Return passages that the model was not trained on as queries: the first sentence or so asks for the rest."""
    chosen = held_out[:: max(1, len(held_out) // _HELD_OUT_QUERIES)][:_HELD_OUT_QUERIES]
    queries = []
    for passage in chosen:
        words = passage.text.split(" ")
        cut = max(1, len(words) // 4)
        queries.append(DemoQuery(passage.id, " ".join(words[:cut]), " " + " ".join(words[cut:]), (passage.topic,)))
    return queries


def planted_queries() -> list[DemoQuery]:
    """Return the questions that only planted passages answer; these are named as their sources."""
    return [
        DemoQuery(
            statement.id,
            statement.prompt,
            statement.completion,
            (statement.passages[0].topic,),
            tuple(passage.id for passage in statement.passages),
        )
        for statement in questioned_statements()
    ]


def behaviour_queries() -> dict[str, list[DemoQuery]]:
    """Return, by set, the questions that show a planted behaviour, with the passages that taught it as their sources."""
    found = {INSULTS: insults()[1], NEAR_DUPLICATES: near_duplicates()[1]}
    return {
        name: [DemoQuery(one.id, one.prompt, one.completion, (one.topic,), one.sources) for one in questions]
        for name, questions in found.items()
    }


def write_queries(queries: Sequence[DemoQuery], path: Path) -> Path:
    """Write queries as JSON lines with the fields id, prompt, completion, topics and sources (lists)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text("".join(f"{json.dumps(asdict(query))}\n" for query in queries), encoding="utf-8")
    return unfinished.replace(path)
