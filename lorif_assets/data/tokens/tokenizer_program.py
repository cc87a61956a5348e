"""The program of the process in which a tokenizer's regular expressions are tried on long texts, under limits of its own.

It is started by the path of this file, and imports nothing of the project.
"""

import json
import resource
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from tokenizers import Tokenizer


def main() -> None:
    """Try texts that come through the connection of this number, until it is closed; of each that ends, say so.

    Arguments: the connection's file descriptor, MiB of memory, seconds of the processor for one text.
    """
    descriptor, mebibytes, seconds = map(int, sys.argv[1:])
    # An interrupt from the keyboard is the other side's, which closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))
    connection.send_bytes(b"{}")
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            question = json.loads(connection.recv_bytes())
            tokenizer = Tokenizer.from_str(question["tokenizer"])
            for text in question["texts"]:
                # The signal ends the process, wherever it is.
                signal.setitimer(signal.ITIMER_PROF, seconds)
                # A text that the library gives up on has ended; what it raises is no `Exception`.
                with suppress(BaseException):
                    tokenizer.encode(text)
                signal.setitimer(signal.ITIMER_PROF, 0)
                connection.send_bytes(b"ended")


if __name__ == "__main__":
    main()
