"""Questions that have to be computed: one after the other, in a thread with a warm model, and how far each is."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread

from lorif_assets.api.answer import Attribution
from lorif_assets.api.project import OpenProject
from lorif_assets.attribution.ask import TopK
from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import LorifError, NotStoredError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, PRECONDITIONER_TABLES
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.progress import watched

_LOG = logging.getLogger(__name__)
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
    """What is computed: a stored query where `query_set` is named, else a completion."""

    checkpoint: str
    prompt: str = ""
    completion: str = ""
    chat: bool = False
    query_set: str = ""
    query: str = ""


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


@dataclass(eq=False)
class _Asked:
    question: Computed
    progress: Progressed
    asked: float = field(default_factory=time.monotonic)
    answer: Attribution | None = None
    finished: Event = field(default_factory=Event)


class Answers:
    """What was asked lately, with its answers. Where factors or curvature changed since, a question is a new one.

    All examples are listed of up to 20,000, else the 1,000 highest and lowest.
    """

    def __init__(self, project: OpenProject, lake: RememberingLake) -> None:
        """Take the project to ask; nothing is loaded before `warm` or the first question."""
        self._project, self._lake = project, lake
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # One question at a time, which has the device and the memory to itself; and none keeps the process from ending.
        Thread(target=self._run, name="answers", daemon=True).start()
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._lock = Lock()

    def warm(self) -> None:
        """Load the newest checkpoint in the background, ahead of the first question."""
        self._work.put(self._load)

    def ask(self, question: Computed) -> Progressed:
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

    def progress(self, question: Computed) -> Progressed:
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
        if asked is None:
            raise NotStoredError(
                f"no question with the key {key!r} is known: only the last {_KEPT} are, and none from before the explorer was "
                "started; ask it again"
            )
        return asked.question

    def wait(self, question: Computed, seconds: float) -> Progressed:
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
        asked = self._asked.get(self._key(question))
        if asked is None or asked.answer is None:
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

    def _key(self, question: Computed) -> str:
        versions = [self._lake.version(schema) for schema in (GRADIENT_FACTORS, *PRECONDITIONER_TABLES)]
        return content_hash([vars(question), versions])

    def _load(self) -> None:
        try:
            self._project.load()
        except LorifError as error:
            _LOG.warning("No checkpoint could be loaded ahead of the first question: %s", error)

    def _compute(self, question: Computed, asked: _Asked) -> None:
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

    def _answer(self, question: Computed) -> Attribution:
        n_examples = self._lake.read(GRADIENT_FACTORS, ["shard"], checkpoint=question.checkpoint).height
        at = question.checkpoint
        top_k: TopK = "all" if n_examples <= _EVERY_UP_TO else _LEADING
        if question.query_set:
            return self._project.attribute_stored_query(question.query_set, question.query, checkpoint=at, top_k=top_k)
        if question.chat:
            turns = {"user": question.prompt, "assistant": question.completion}
            chat = [{"role": role, "content": content} for role, content in turns.items() if content]
            return self._project.attribute_chat(chat, checkpoint=at, top_k=top_k)
        return self._project.attribute(question.prompt, question.completion, checkpoint=at, top_k=top_k)


def _progress(key: str, asked: _Asked) -> Progressed:
    return replace(asked.progress, seconds=time.monotonic() - asked.asked, key=key)
