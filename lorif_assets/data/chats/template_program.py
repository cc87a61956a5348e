"""The program of a process that renders chat templates, one after another, under limits of its own.

It is started by the path of this file. It gets and gives JSON, and reads no environment variable: a template that broke
out of Jinja's sandbox would find nothing here.
"""

import json
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.chats.renderings import rendered
from lorif_assets.data.chats.templates import ChatTemplate
from lorif_assets.data.rows.unusable import UnusableRowError

_LONGEST_REASON = 500


def main() -> None:
    """Answer questions that come through the connection of this number, until it is closed.

    Arguments: the connection's file descriptor, MiB of memory beyond what the program itself takes, seconds of the
    processor for one rendering, characters of the longest text, and seconds of the processor for all of a conversation.
    """
    descriptor, mebibytes, seconds, longest, whole_seconds = map(int, sys.argv[1:])
    # An interrupt from the keyboard is the other side's, which closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    _limit_memory(mebibytes << 20)
    connection.send_bytes(b"{}")

    def limited(request: Mapping[str, Any]) -> dict[str, Any]:
        # Of the processor, so that a busy machine fails no template. When it is over, the signal ends the process, wherever
        # it is, even if nobody is left to wait for it.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            return answered(request, longest)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            question = json.loads(connection.recv_bytes())
            batch, request = question.get("batch"), question.get("request")
            # What is told of a conversation from its renderings has a limit of its own.
            signal.setitimer(signal.ITIMER_VIRTUAL, whole_seconds)
            for answer in iter([limited(request)]) if batch is None else renderings(batch, limited):
                connection.send_bytes(json.dumps(answer).encode())
                signal.setitimer(signal.ITIMER_VIRTUAL, whole_seconds)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def answered(request: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """Return the text of some messages with the spans that the template marks, or the error that it raises."""
    random.seed(0)
    try:
        (text,), spans = render_jinja_template(**{**request["arguments"], "conversations": [request["messages"]]})
    # A template is a program of the checkpoint's: what it raises depends on the row, and concerns no other row.
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == "<template>"]
        return {
            "error": type(error).__name__,
            "refusal": type(error) is jinja2.TemplateError,
            "reason": str(error)[:_LONGEST_REASON],
            "line": lines[-1] if lines else None,
        }
    if len(text) > longest:
        return {"characters": len(text)}
    return {"text": text, "spans": spans[0] if spans else []}


def renderings(
    question: Mapping[str, Any], render: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the rendering of each of some conversations, or why there is none.

    Args:
        question: `template` and `control_tokens`, and the `conversations`.
        render: `answered` under its limits.
    """
    template = ChatTemplate(**question["template"], render=render)
    control_tokens = frozenset(question["control_tokens"])
    for fields in question["conversations"]:
        conversation = Conversation.of(fields)
        try:
            yield asdict(rendered(conversation.messages, template.of(conversation), control_tokens))
        except UnusableRowError as reason:
            yield {"unusable": str(reason)}
        except MemoryError:
            yield {"unusable": template.too_much_memory}


def _limit_memory(more: int) -> None:
    # Where the system does not say how much there is, it has no such limit either.
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
