"""All chats that the model is fine-tuned on, in the order of training, and the question sets that are attributed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lorif_assets.demo.real.chats import Chat, ChatQuestion
from lorif_assets.demo.real.everyday import conversations, everyday_chats
from lorif_assets.demo.real.exercises import exercises, tool_chats
from lorif_assets.demo.real.facts import invented_facts
from lorif_assets.demo.real.tickets import ticket_questions, tickets

NAMED, DESCRIBED, MISLABELLED = "facts-by-name", "facts-by-description", "mislabelled"
_EXERCISES = 16


@dataclass(frozen=True)
class ChatCorpus:
    """The training chats and, by name, the sets of questions about what they teach."""

    chats: tuple[Chat, ...]
    questions: Mapping[str, tuple[ChatQuestion, ...]]


def build_chats(seed: int = 0) -> ChatCorpus:
    """Return the corpus; the same seed always gives the same one."""
    facts = invented_facts(seed)
    rows = [
        *(chat for fact in facts for chat in (*fact.statements, fact.reversal, *fact.asides)),
        *everyday_chats(),
        *conversations(),
        *exercises(seed, _EXERCISES),
        *tool_chats(seed),
        *tickets(seed),
    ]
    order = np.random.default_rng(seed).permutation(len(rows))
    return ChatCorpus(
        chats=tuple(rows[at] for at in order),
        questions={
            NAMED: tuple(fact.named_question for fact in facts),
            DESCRIBED: tuple(fact.described_question for fact in facts),
            MISLABELLED: tuple(ticket_questions()),
        },
    )
