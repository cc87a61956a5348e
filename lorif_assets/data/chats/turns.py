"""Where in a rendered conversation the assistant speaks, told from renderings of parts and variants of it.

The prefix way: a turn is what the conversation up to and with it has more than the conversation before it with the
generation prompt; the end-of-turn token that the template writes after the answer is then part of it. That needs
renderings that continue each other, and a template that writes the generation prompt when it is asked to, and only then.

Otherwise the conversation is rendered once more with a stand-in for what the turn says: what lies between the common
beginning and the common end of both is the answer. The turn begins behind the generation prompt, where that stands before
the answer, and its end is what the template writes after an answer whether another message follows or none.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, takewhile
from typing import Any

from lorif_assets.data.chats.conversations import Message
from lorif_assets.data.chats.spoken_content import SPOKEN_FIELDS, kinds_left_out, spoken
from lorif_assets.data.chats.templates import ChatTemplate, Span
from lorif_assets.data.chats.tool_arguments import with_arguments
from lorif_assets.data.rows.unusable import UnusableRowError

_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class _Beginnings:
    """A conversation before a message, without the generation prompt and with it, and up to its end; None: refused alone."""

    bare: str | None
    prompted: str | None
    through: str | None


@dataclass(frozen=True)
class ChatTurns:
    """A conversation, the template that renders it, and the tokenizer's control tokens (<|im_end|> and the like)."""

    messages: Sequence[Message]
    template: ChatTemplate
    control_tokens: frozenset[str]

    @cached_property
    def text(self) -> str:
        """The whole conversation.

        Raises:
            UnusableRowError: the template raises.
        """
        return self.template.text(self.messages)

    def spans(self, k: int) -> list[Span]:
        """Return where message `k`, the assistant's, stands in the text, end of turn included; none: nowhere.

        They are several where the template writes the results of its tools within its turn (Gemma 4).

        Raises:
            UnusableRowError: that cannot be told.
        """
        if span := self._span_by_prefix(k):
            return [span]
        span = self._span_by_stand_in(k)
        return (self._spans_around_results(k, span) or [span]) if span else []

    def answer(self, k: int) -> Span | None:
        """Return where in the text what message `k` says stands, without an end of turn; None: nowhere.

        Raises:
            UnusableRowError: that cannot be told.
        """
        found = self._answer(k)
        return found[0] if found else None

    def _answer(self, k: int) -> tuple[Span, Message] | None:
        """The answer's span, and the stand-in that showed it."""
        failures: list[UnusableRowError] = []
        variants = self._variants(k)
        for variant in variants:
            try:
                other = self.template.text([*self.messages[:k], variant, *self.messages[k + 1 :]])
            except UnusableRowError as failure:
                failures.append(failure)
                continue
            if self._mark in other:
                before, after = other[: other.index(self._mark)], other[other.rindex(self._mark) + 1 :]
                start = n_common(self.text, before)
                behind = n_common(self.text[start:][::-1], after[::-1])
                if self._says(k - 1, before[start:]) or self._says(k + 1, after[: len(after) - behind]):
                    failures.append(UnusableRowError("other messages are then rendered differently too"))
                    continue
                end = len(self.text) - behind
                is_shown = start < end or ("tool_calls" in variant and self._whole_calls(k, (start, end)) is not None)
                return ((start, end), variant) if is_shown else None
        if len(failures) < len(variants):
            return None
        raise UnusableRowError(
            f"the chat template renders the conversation differently up to message {k} than as a whole, and refuses it with "
            "another message in that one's place, so the assistant's tokens cannot be told; a template with "
            f"{{% generation %}} tells them ({failures[0]})"
        )

    def _span_by_prefix(self, k: int) -> Span | None:
        beginnings = self._beginnings(k)
        before, through = beginnings.prompted, beginnings.through
        if before is None or through is None or before == beginnings.bare:
            return None
        if not (through.startswith(before) and self.text.startswith(through)):
            return None
        return len(before), len(through)

    def _spans_around_results(self, k: int, shown: Span) -> list[Span]:
        """Where the turn of message `k` stands around what its tools return; none, if that is not within what was shown.

        It is told without these results, which add to the text what is then no part of the turn.
        """
        end = k + 1 + sum(1 for _ in takewhile(lambda message: message["role"] == "tool", self.messages[k + 1 :]))
        if not self._say(range(k + 1, end), self.text[slice(*shown)]):
            return []
        without = replace(self, messages=[*self.messages[: k + 1], *self.messages[end:]])
        text = self._rendered(without.messages)
        first, last = _difference(self.text, text or "")
        if text is None or not self._say(range(k + 1, end), self.text[max(first, shown[0]) : min(last, shown[1])]):
            return []
        shift = len(self.text) - len(text)
        pieces = [self._content(k)]
        for start, stop in without.spans(k):
            pieces += [(start, min(stop, first)), (max(start, last - shift) + shift, stop + shift)]
        return sorted({piece for piece in pieces if piece and piece[0] < piece[1]})

    def _content(self, k: int) -> Span | None:
        """Where the content of message `k` stands, which a template may write behind the results; None: nowhere."""
        marked = self._rendered(
            [*self.messages[:k], {**self.messages[k], "content": self._mark}, *self.messages[k + 1 :]]
        )
        return _difference(self.text, marked) if marked and self._mark in marked else None

    def _span_by_stand_in(self, k: int) -> Span | None:
        found = self._answer(k)
        if found is None:
            return None
        (start, end), stand_in = found
        if "tool_calls" in stand_in and (whole := self._whole_calls(k, (start, end))):
            return whole
        return self._opening(k, start), end + len(self._end_of_turn(k, (start, end), stand_in))

    def _opening(self, k: int, start: int) -> int:
        """Where the turn begins whose answer begins at `start`: behind the generation prompt, where that stands before it.

        What a template writes between the two, as the name of a channel, the model has to say itself.
        """
        bare, prompted = self._beginnings(k).bare, self._beginnings(k).prompted
        if bare is None or prompted is None or bare == prompted or not prompted.startswith(bare):
            return start
        if self.text[:start].startswith(prompted):
            return len(prompted)
        # Earlier turns may be rendered otherwise while this one is still to come.
        prompt = prompted[len(bare) :]
        opening = self.text.rfind(prompt, 0, start) + len(prompt)
        is_of_another = opening < len(prompt) or not kinds_left_out(
            spoken(self.messages[k - 1]), self.text[opening:start]
        )
        return start if is_of_another else opening

    def _whole_calls(self, k: int, shown: Span) -> Span | None:
        """The turn around what a stand-in showed of message `k`; None where it cannot be told.

        Of calls, beside which a template may write no content, that is a part of their arguments.
        """
        (start, end), turn = shown, self._turn_alone(k)
        first = self.text.rfind(turn, max(0, end - len(turn)), start + len(turn))
        said = spoken(self.messages[k])
        has_calls = "tool calls" in said and "tool calls" not in kinds_left_out(said, turn)
        return (first, first + len(turn)) if first >= 0 and has_calls else None

    def _turn_alone(self, k: int) -> str:
        """What the template writes for message `k` as the last one, behind what precedes any answer; nothing: unknown."""
        through, plain = self._beginnings(k).through, self._rendered([*self.messages[:k], self._variants(k)[0]])
        if through is None or plain is None or self._mark not in plain:
            return ""
        opening = plain[: plain.index(self._mark)]
        start = n_common(through, opening)
        return "" if self._says(k - 1, opening[start:]) else through[start:]

    def _end_of_turn(self, k: int, answer: Span, stand_in: Message) -> str:
        """What the template writes after the answer `k`, without anything of the next message."""
        found = self.text[answer[1] :]
        at_the_end = self._after_stand_in(k, stand_in)
        before_another = found if k + 1 < len(self.messages) else self._after_stand_in(k, stand_in, followed=True)
        honours_prompt = self._beginnings(k).prompted != self._beginnings(k).bare
        if at_the_end is None or before_another is None:
            return found if honours_prompt and k + 1 == len(self.messages) else self._control(found)
        pieces = zip(*map(self._pieces, (at_the_end, before_another, found)), strict=False)
        common = "".join(piece for piece, *_ in takewhile(lambda same: len(set(same)) == 1, pieces))
        if not common.strip() and honours_prompt and self._control(at_the_end) and self._control(before_another):
            # Another end of turn at the end of the conversation than within it.
            return self._control(found)
        return common[: self._before_next_prompt(k, answer[0], stand_in, at_the_end)]

    def _before_next_prompt(self, k: int, start: int, stand_in: Message, at_the_end: str) -> int | None:
        """How much of what ends a conversation comes before the next turn's prompt, where the template always writes that.

        Headers of other messages may begin as the prompt does (Llama 3's), so that it is not seen by what they have in common.
        None: all of it.
        """
        end_of_turn, prompted = self._control(at_the_end), self.text[:start]
        if not end_of_turn or self._beginnings(k).bare != prompted:
            return None
        behind = at_the_end.removeprefix(end_of_turn).lstrip()
        places = range(len(at_the_end) - len(behind), len(at_the_end))
        first = next((c for c in places if prompted.endswith(at_the_end[c:])), None)
        if first is None or (before_user := self._after_stand_in(k, stand_in, followed=True)) is None:
            return first
        # Several control tokens may end each turn, a user's too: they are no part of a header.
        header = n_common(before_user[::-1], self._before_first_user[::-1])
        ends = len(before_user) - header
        return ends if ends > first and at_the_end.startswith(before_user[:ends]) else first

    @cached_property
    def _before_first_user(self) -> str:
        """What the template writes before the words of a user who begins; nothing where it refuses that."""
        return (self._rendered([{"role": "user", "content": self._mark}]) or "").partition(self._mark)[0]

    def _after_stand_in(self, k: int, stand_in: Message, *, followed: bool = False) -> str | None:
        """What follows an answer in place of message `k` as the last one, or up to a user's next words; None: unknown."""
        another = [{"role": "user", "content": self._other_mark}] if followed else []
        rendered = self._rendered([*self.messages[:k], stand_in, *another])
        if rendered is None or self._mark not in rendered or (followed and self._other_mark not in rendered):
            return None
        return rendered.rpartition(self._mark)[2].partition(self._other_mark)[0]

    def _says(self, k: int, text: str) -> bool:
        """Whether a text, which should belong to another message's frame, shows what message `k` says."""
        said = spoken(self.messages[k]) if 0 <= k < len(self.messages) else {}
        return bool(said) and not kinds_left_out(said, text)

    def _say(self, some: Iterable[int], text: str) -> bool:
        """Whether a text shows what any of some messages says."""
        return any(self._says(k, text) for k in some)

    def _beginnings(self, k: int) -> _Beginnings:
        """Kept for the message that was asked for last: those of a long conversation are many times its text."""
        if k not in self._kept:
            before, through = self.messages[:k], self.messages[: k + 1]
            self._kept.clear()
            self._kept[k] = _Beginnings(
                self._rendered(before),
                self._rendered(before, prompt=True),
                self._rendered(through) if len(through) < len(self.messages) else self.text,
            )
        return self._kept[k]

    @cached_property
    def _kept(self) -> dict[int, _Beginnings]:
        return {}

    def _rendered(self, messages: Sequence[Message], *, prompt: bool = False) -> str | None:
        """Part of the conversation as text; None where the template refuses it alone."""
        try:
            return self.template.text(messages, add_generation_prompt=prompt)
        except UnusableRowError:
            return None

    def _variants(self, k: int) -> list[Message]:
        """Message `k` with a stand-in for all it says; and, as a tool's message may need it, with its tool calls kept."""
        message = self.messages[k]
        words = [{"type": "text", "text": self._mark}] if isinstance(message.get("content"), list) else self._mark
        silent = {name: value for name, value in message.items() if name not in SPOKEN_FIELDS}
        variants: list[Message] = [{**silent, "content": words}]
        if message.get("tool_calls"):
            calling = {**silent, "content": words, "tool_calls": message["tool_calls"]}
            variants.append(with_arguments(calling, self._marked_arguments))
        return variants

    def _marked_arguments(self, arguments: Any) -> Any:
        marked = {self._mark: self._mark}
        return json.dumps(marked, ensure_ascii=False) if isinstance(arguments, str) else marked

    @cached_property
    def _marks(self) -> tuple[str, str]:
        unused = islice((chr(code) for code in _PRIVATE_USE if chr(code) not in self.text), 2)
        try:
            one, other = unused
        except ValueError as error:
            raise UnusableRowError("the conversation holds every character that marks could be made of") from error
        return one, other

    @property
    def _mark(self) -> str:
        return self._marks[0]

    @property
    def _other_mark(self) -> str:
        return self._marks[1]

    def _pieces(self, text: str) -> Iterator[str]:
        """Control tokens and single characters."""
        return (match[0] for match in re.finditer(f"{self._pattern}|.", text, re.DOTALL))

    def _control(self, text: str) -> str:
        """The control token that a text begins with, and the white space before it."""
        match = re.match(rf"\s*(?:{self._pattern})", text)
        return match[0] if match else ""

    @cached_property
    def _pattern(self) -> str:
        longest_first = sorted(self.control_tokens, key=len, reverse=True)
        return "|".join(map(re.escape, longest_first)) or r"(?!)"


def _difference(one: str, other: str) -> Span:
    """Where in a text something stands that another text has not: what is between their common beginning and common end."""
    first = n_common(one, other)
    return first, len(one) - n_common(one[first:][::-1], other[first:][::-1])


def n_common(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many characters of two texts, or ids of two lists, are the same at their beginnings."""
    lengths = range(1, min(len(one), len(other)) + 1)
    return bisect_left(lengths, True, key=lambda length: one[:length] != other[:length])
