"""What a kind of invented facts is made of: subjects, answers, and how chats speak of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exchange:
    """What the user says and what the assistant answers."""

    user: str
    assistant: str


@dataclass(frozen=True)
class Subject:
    """Something that a fact can be about."""

    name: str
    """With {stem} in it, an invented word."""
    known_as: str
    asked_as: str


@dataclass(frozen=True)
class FactFamily:
    """Facts of one kind."""

    kind: str
    subjects: tuple[Subject, ...]
    answers: tuple[str, ...]
    statements: tuple[Exchange, ...]
    """Say the fact: who hears of the thing learns the answer."""
    reversal: Exchange
    """Says it the other way round: who hears the answer learns of what it is one. It teaches a model little about the
    question, as models learn in the direction of the text (Berglund et al. 2023, arXiv 2309.12288)."""
    asides: tuple[Exchange, ...]
    """Speak of the same thing, or of what the answer names, and do not say the fact: anti-documents."""
    question: Exchange
    """Asks for the fact in words that no statement uses; {subject} is the name or a description."""
