"""The readable content of examples that scores point to."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from lorif_assets.data.chats.conversations import Conversation, Message, is_trained
from lorif_assets.data.chats.spoken_content import REASONING_FIELDS, spoken
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

_SHOWN_IDS = 64


@dataclass(frozen=True)
class Part:
    """A piece of a passage: who says it, in a chat, and whether its tokens carry loss."""

    text: str
    carries_loss: bool
    role: str | None = None


def passage_rows(lake: Lake, examples: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Return the rows of training examples by (shard, example_id); those that were withdrawn are left out."""
    wanted = pl.DataFrame(sorted(set(examples)), schema={"shard": pl.String, "example_id": pl.String}, orient="row")
    rows = lake.read(
        TRAINING_EXAMPLES,
        shard=wanted["shard"].unique(maintain_order=True).to_list(),
        example_id=wanted["example_id"].unique(maintain_order=True).to_list(),
    )
    # Two shards may have the same ids.
    return rows.join(wanted, on=["shard", "example_id"], how="semi")


def passages(lake: Lake, examples: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the same rows by (shard, example_id)."""
    rows = passage_rows(lake, examples)
    return {(row["shard"], row["example_id"]): row for row in rows.iter_rows(named=True)}


def with_passages(lake: Lake, scores: pl.DataFrame) -> pl.DataFrame:
    """Return rows of scores with what their examples say: `text`, and `metadata` as JSON; null where one was withdrawn."""
    pairs = list(scores.select("shard", "example_id").iter_rows())
    found = passages(lake, pairs)
    rows = [found.get(pair) for pair in pairs]
    return scores.with_columns(
        pl.Series("text", [row and passage_text(row) for row in rows], pl.String),
        pl.Series("metadata", [row and row["metadata"] for row in rows], pl.String),
    )


def passage_text(row: Mapping[str, Any]) -> str:
    """Return the readable content of an example row of any format; of a chat also what it reasons and calls."""
    match row["format"]:
        case "text":
            return str(row["text"])
        case "prompt_completion":
            return f"{row['prompt']}{row['completion']}"
        case "messages":
            return "\n\n".join(_after_its_role(turn) for turn in passage_parts(row))
        case _:
            ids = row["input_ids"]
            return (
                f"{len(ids)} token ids: {' '.join(map(str, ids[:_SHOWN_IDS]))}{' ...' if len(ids) > _SHOWN_IDS else ''}"
            )


def whole_text(row: Mapping[str, Any]) -> str:
    """Return all that an example row says, to be compared with others: token ids too, of which a reader is shown the first."""
    return " ".join(map(str, row["input_ids"])) if row["format"] == "input_ids" else passage_text(row)


def passage_parts(row: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the readable content of an example row of any format, piece by piece.

    Token ids are one piece that carries loss, also where only some are labelled.
    """
    match row["format"]:
        case "prompt_completion":
            prompt, completion = Part(row["prompt"], carries_loss=False), Part(row["completion"], carries_loss=True)
            return (prompt, completion) if prompt.text else (completion,)
        case "messages":
            return tuple(
                Part(
                    _said(turn),
                    carries_loss=turn["role"] == "assistant" and is_trained(turn),
                    role=turn["role"],
                )
                for turn in Conversation.parse(row["messages"]).messages
            )
        case _:
            return (Part(passage_text(row), carries_loss=True),)


def asked_and_said(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an example row says up to the last piece that carries loss, and that piece.

    These are its prompt and its completion, or a chat up to the last answer that is trained on, and that answer.
    """
    match row["format"]:
        case "prompt_completion":
            return row["prompt"], row["completion"]
        case "messages":
            turns = passage_parts(row)
            last = max((at for at, turn in enumerate(turns) if turn.carries_loss), default=len(turns) - 1)
            asked = "\n\n".join(map(_after_its_role, (*turns[:last], replace(turns[last], text=""))))
            return asked, turns[last].text
        case _:
            return "", passage_text(row)


def _after_its_role(turn: Part) -> str:
    return f"[{turn.role}] {turn.text}"


def passage_turns(row: Mapping[str, Any]) -> tuple[Part, ...]:
    """Return the turns of an example row that is a chat; of another, none."""
    return passage_parts(row) if row["format"] == "messages" else ()


def _said(message: Message) -> str:
    """A message's reasoning, its content and, as JSON, the tools that it calls."""
    content = message.get("content")
    text = content if isinstance(content, str) else "".join(spoken({"content": content}).get("content", []))
    # Some rows have it by several names.
    reasoning = dict.fromkeys(spoken({name: message.get(name) for name in REASONING_FIELDS}).get("reasoning", []))
    calls = message.get("tool_calls") or message.get("function_call")
    return "\n".join(filter(None, (*reasoning, text, json.dumps(calls, ensure_ascii=False) if calls else "")))


def passage_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata columns of an example row."""
    return dict(json.loads(row["metadata"] or "{}"))
