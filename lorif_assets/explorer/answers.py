"""Questions that have to be computed: one after the other, in a thread with a warm model, and how far each is."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, TypeVar

import polars as pl

from lorif_assets.api.answer import Attribution
from lorif_assets.api.project import OpenProject
from lorif_assets.attribution.ask import TopK
from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import LorifError, NotStoredError
from lorif_assets.explorer.spans import span_value
from lorif_assets.influences.catalogue import stored_line
from lorif_assets.influences.selection import Selection
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, PRECONDITIONER_TABLES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.pages.token_colours import pair_tokens
from lorif_assets.progress import watched

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer", Attribution, pl.DataFrame, Selection)
_ANSWERED_FROM = (TRAINING_EXAMPLES, QUERY_EXAMPLES, GRADIENT_FACTORS, *PRECONDITIONER_TABLES)
_KEPT = 32
_EVERY_UP_TO = 20_000
_LEADING = 1_000
_QUEUED = "waiting until the model is loaded, or for questions before"


class Stage(StrEnum):
    """How far a question is."""

    NOT_ASKED = "not asked"
    WAITING = "waiting"
    COMPUTING = "computing"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Computed:
    """What is computed: a stored query where `query_set` is named, else a completion or several; or a span of it."""

    checkpoint: str
    prompt: str = ""
    completion: str = ""
    against: str = ""
    chat: bool = False
    weighted: tuple[Mapping[str, Any], ...] = ()
    """Several completions with weights, as a line of a query file has them."""
    query_set: str = ""
    query: str = ""
    span: str = ""
    shard: str = ""
    example: str = ""
    """With these, not a ranking but the tokens of one example."""


@dataclass(frozen=True)
class Progressed:
    """How far a question is; `done` of `total` `unit`s of the work that `doing` says, and seconds since it was asked.

    `key` stands for the question while the explorer runs; empty where it was not asked.
    """

    stage: Stage
    doing: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds: float = 0.0
    error: str | None = None
    key: str = ""


Work = Computed | WantedRows
"""What can be asked for: a ranking, tokens, or a selection of training data."""


@dataclass(eq=False)
class _Asked:
    question: Work
    progress: Progressed
    asked: float = field(default_factory=time.monotonic)
    answer: Attribution | pl.DataFrame | Selection | None = None
    finished: Event = field(default_factory=Event)


class Answers:
    """What was asked lately, with its answers. Where tables that it is answered from changed, a question is a new one.

    All examples are listed of up to 20,000, else the 1,000 highest and lowest.
    """

    def __init__(self, project: OpenProject, lake: RememberingLake) -> None:
        """Take the project to ask and its lake; nothing is loaded before `warm` or the first question."""
        self._project, self.lake = project, lake
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # One question at a time, which has the device and the memory to itself; and none keeps the process from ending.
        Thread(target=self._run, name="answers", daemon=True).start()
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._lock = Lock()

    def warm(self) -> None:
        """Load the newest checkpoint in the background, ahead of the first question."""
        self._work.put(self._load)

    def ask(self, question: Work) -> Progressed:
        """Have a question computed, unless it was already, and return how far it is. One that failed is tried again."""
        key = self._key(question)
        with self._lock:
            asked = self._asked.get(key)
            if asked is None or asked.progress.stage is Stage.FAILED:
                asked = self._asked[key] = _Asked(question, Progressed(Stage.WAITING, _QUEUED))
                self._work.put(partial(self._compute, question, asked))
            self._asked.move_to_end(key)
            while len(self._asked) > _KEPT and next(iter(self._asked.values())).finished.is_set():
                self._asked.popitem(last=False)
        return _progress(key, asked)

    def progress(self, question: Work) -> Progressed:
        """Return how far a question is."""
        key = self._key(question)
        asked = self._asked.get(key)
        return _progress(key, asked) if asked else Progressed(Stage.NOT_ASKED)

    def question(self, key: str) -> Computed:
        """Return the question that a key stands for.

        Raises:
            NotStoredError: it was not asked since the explorer was started, or long ago.
        """
        asked = self._asked.get(key)
        if asked is None or not isinstance(asked.question, Computed):
            raise NotStoredError(
                f"no question with the key {key!r} is known: only the last {_KEPT} are, and none from before the explorer was "
                "started; ask it again"
            )
        return asked.question

    def wait(self, question: Work, seconds: float) -> Progressed:
        """Wait until a question that was asked is finished, at most this long."""
        asked = self._asked.get(self._key(question))
        if asked:
            asked.finished.wait(seconds)
        return self.progress(question)

    def answer(self, question: Computed) -> Attribution:
        """Return the answer to a question that was computed.

        Raises:
            NotStoredError: it was not.
        """
        return self._found(question, Attribution)

    def notice(self, question: Computed) -> str | None:
        """Return what is to be known beside the answer to a question; None as long as there is none."""
        asked = self._asked.get(self._key(question))
        if asked is None:
            return None
        if isinstance(asked.answer, pl.DataFrame):
            return pair_tokens(asked.answer).notice
        return asked.answer.notice if isinstance(asked.answer, Attribution) else None

    def tokens(self, question: Computed) -> pl.DataFrame:
        """Return the tokens of a pair that was computed, as `OpenProject.attribute_tokens`.

        Raises:
            NotStoredError: it was not.
        """
        return self._found(question, pl.DataFrame)

    def selection(self, wanted: WantedRows) -> Selection:
        """Return a selection that was found.

        Raises:
            NotStoredError: it was not.
        """
        return self._found(wanted, Selection)

    def _found(self, question: Work, kind: type[_Answer]) -> _Answer:
        asked = self._asked.get(self._key(question))
        if asked is None or not isinstance(asked.answer, kind):
            stage = asked.progress.stage if asked else Stage.NOT_ASKED
            raise NotStoredError(
                f"this question is not answered yet ({stage}): ask it first, and wait until it is ready"
            )
        return asked.answer

    def close(self) -> None:
        """Answer what was asked until now, and nothing more."""
        self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def _key(self, question: Work) -> str:
        versions = [self.lake.version(schema) for schema in _ANSWERED_FROM]
        return content_hash([vars(question), versions])

    def _load(self) -> None:
        try:
            self._project.load()
        except LorifError as error:
            _LOG.warning("No checkpoint could be loaded ahead of the first question: %s", error)

    def _compute(self, question: Work, asked: _Asked) -> None:
        def tell(doing: str, done: int, total: int, unit: str) -> None:
            asked.progress = Progressed(Stage.COMPUTING, doing, done, total, unit)

        asked.progress = Progressed(Stage.COMPUTING, "loading the checkpoint, or waiting for a device")
        try:
            with watched(tell):
                asked.answer = self._answer(question)
            asked.progress = Progressed(Stage.READY)
        except LorifError as error:
            asked.progress = Progressed(Stage.FAILED, error=str(error))
        except Exception as error:
            _LOG.exception("A question failed")
            asked.progress = Progressed(Stage.FAILED, error=f"{type(error).__name__}: {error}")
        finally:
            asked.finished.set()

    def _answer(self, question: Work) -> Attribution | pl.DataFrame | Selection:
        if isinstance(question, WantedRows):
            return self._project.select(**vars(question))
        if question.example:
            return self._project.attribute_tokens(
                self._line(question), question.shard, question.example, checkpoint=question.checkpoint
            )
        n_examples = self.lake.read(GRADIENT_FACTORS, ["shard"], checkpoint=question.checkpoint).height
        at = question.checkpoint
        top_k: TopK = "all" if n_examples <= _EVERY_UP_TO else _LEADING
        if question.span or question.against or question.weighted:
            return self._project.attribute_query(self._line(question), checkpoint=at, top_k=top_k)
        if question.query_set:
            return self._project.attribute_stored_query(question.query_set, question.query, checkpoint=at, top_k=top_k)
        if question.chat:
            return self._project.attribute_chat(
                _exchange(question.prompt, question.completion), checkpoint=at, top_k=top_k
            )
        return self._project.attribute(question.prompt, question.completion, checkpoint=at, top_k=top_k)

    def _line(self, question: Computed) -> dict[str, Any]:
        """Return what is asked as a line of a query file has it.

        Raises:
            NotStoredError: the stored query is gone.
        """
        if question.query_set:
            line = stored_line(self.lake, question.query_set, question.query)
        elif question.weighted:
            line = {"weighted": [*question.weighted]}
        elif question.chat:
            line = {"messages": _exchange(question.prompt, question.completion)}
        elif question.prompt:
            line = {"prompt": question.prompt, "completion": question.completion}
        else:
            line = {"text": question.completion}
        if question.against:
            line["against"] = question.against
        return {**line, "span": span_value(question.span)} if question.span else line


def member_line(prompt: str, completion: str, weight: float, *, chat: bool) -> dict[str, Any]:
    """Return one of several completions as a weighted set of a query file has it."""
    said: dict[str, Any] = {"prompt": prompt, "completion": completion}
    return {**({"messages": _exchange(prompt, completion)} if chat else said), "weight": weight}


def said_of_member(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt, completion and weight of one of several completions, as a weighted set of a query file has it."""
    if "messages" not in line:
        return dict(line)
    said = {turn["role"]: turn["content"] for turn in line["messages"]}
    return {"prompt": said.get("user", ""), "completion": said["assistant"], "weight": line["weight"]}


def _exchange(prompt: str, completion: str) -> list[dict[str, str]]:
    turns = {"user": prompt, "assistant": completion}
    return [{"role": role, "content": content} for role, content in turns.items() if content]


def _progress(key: str, asked: _Asked) -> Progressed:
    return replace(asked.progress, seconds=time.monotonic() - asked.asked, key=key)
