"""The program of the process that renders chat templates, one after another, under limits of its own.

It is started by the path of this file, and imports nothing of the project. It gets and gives JSON, and reads no
environment variable: a template that broke out of Jinja's sandbox would find nothing here.
"""

import json
import random
import resource
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

_LONGEST_REASON = 500


def main() -> None:
    """Answer requests that come through the connection of this number, until it is closed.

    Arguments: the connection's file descriptor, MiB of memory beyond what the program itself takes, seconds of the
    processor for one rendering, and characters of the longest text.
    """
    descriptor, mebibytes, seconds, longest = map(int, sys.argv[1:])
    # An interrupt from the keyboard is the other side's, which closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    _limit_memory(mebibytes << 20)
    connection.send_bytes(b"{}")
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            question = json.loads(connection.recv_bytes())
            messages, beginnings = question.pop("messages"), question.pop("beginnings")
            for number, prompt in beginnings:
                request = {**question, "conversations": [messages[:number]], "add_generation_prompt": prompt}
                # Of the processor, so that a busy machine fails no template. When it is over, the signal ends the process,
                # wherever it is, even if nobody is left to wait for it.
                signal.setitimer(signal.ITIMER_PROF, seconds)
                answer = json.dumps(answered(request, longest)).encode()
                signal.setitimer(signal.ITIMER_PROF, 0)
                connection.send_bytes(answer)


def answered(request: dict[str, Any], longest: int) -> dict[str, Any]:
    """Return the text of a conversation with the spans that the template marks, or the error that it raises."""
    random.seed(0)
    try:
        (text,), spans = render_jinja_template(**request)
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


def _limit_memory(more: int) -> None:
    # Where the system does not say how much there is, it has no such limit either.
    with suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
