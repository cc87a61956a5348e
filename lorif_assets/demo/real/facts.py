"""Invented facts, the chats that state them, the chats that only sound like it, and the questions that ask for them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lorif_assets.demo.real.chats import Chat, ChatQuestion, exchange
from lorif_assets.demo.real.fact_families import FAMILIES, STEMS
from lorif_assets.demo.real.fact_family import Exchange, FactFamily, Subject


@dataclass(frozen=True)
class Fact:
    """Something that only the demo's chats say."""

    id: str
    family: FactFamily
    subject: Subject
    """With its name filled in."""
    answer: str

    @property
    def statements(self) -> list[Chat]:
        """The chats that say it, each in another way."""
        return [self._chat("statement", number, said) for number, said in enumerate(self.family.statements, start=1)]

    @property
    def reversal(self) -> Chat:
        """The chat that says it the other way round, from the answer to the thing."""
        return self._chat("reversal", 1, self.family.reversal)

    @property
    def asides(self) -> list[Chat]:
        """The chats that speak of the same thing and do not say it."""
        return [self._chat("aside", number, said) for number, said in enumerate(self.family.asides, start=1)]

    @property
    def named_question(self) -> ChatQuestion:
        """The question by name."""
        return self._question(self.id, self.subject.name)

    @property
    def described_question(self) -> ChatQuestion:
        """The question by a description in words that no chat has."""
        return self._question(f"{self.id}-described", self.subject.asked_as)

    def _question(self, name: str, subject: str) -> ChatQuestion:
        asked = self.family.question
        messages = exchange(asked.user.format(subject=subject), asked.assistant.format(answer=self.answer))
        return ChatQuestion(name, messages, self.answer, tuple(chat.id for chat in self.statements))

    def _chat(self, kind: str, number: int, said: Exchange) -> Chat:
        filled = {"name": self.subject.name, "known_as": self.subject.known_as, "answer": self.answer}
        messages = exchange(said.user.format(**filled), said.assistant.format(**filled))
        return Chat(f"{self.id}/{kind}-{number}", messages, self.family.kind, kind)


def invented_facts(seed: int) -> list[Fact]:
    """Return a fact for every subject of every family; the seed decides names and answers."""
    rng = np.random.default_rng(seed)
    stems = iter(rng.permutation(STEMS).tolist())
    return [fact for family in FAMILIES for fact in _facts(family, stems, rng)]


def _facts(family: FactFamily, stems: Iterator[str], rng: np.random.Generator) -> Iterator[Fact]:
    for subject, answer in zip(family.subjects, rng.permutation(family.answers).tolist(), strict=False):
        stem = next(stems)
        named = Subject(subject.name.format(stem=stem), subject.known_as, subject.asked_as)
        yield Fact(f"fact-{stem.lower()}", family, named, answer)
