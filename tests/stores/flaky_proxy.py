"""A proxy before a store that answers every third request with 503, and some of the others late.

Of the objects that are written only where there is none yet, as commits are, every fifth one is written, and its answer lost.

`python flaky_proxy.py PORT TARGET [google] [sound]`: with `google`, requests are those of Google's store, in whose place is one
that speaks S3: its XML interface is the same but for the names of headers. With `sound`, nothing is refused, late or lost.
"""

import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

TARGET = sys.argv[2]
IS_GOOGLE, IS_FLAKY = "google" in sys.argv[3:], "sound" not in sys.argv[3:]
SLOW_DOWN: "tuple[int, dict[str, str], bytes]" = (503, {}, b"<Error><Code>SlowDown</Code></Error>")
RENAMED = {"X-Goog-If-Generation-Match": "If-None-Match", "X-Goog-Copy-Source": "X-Amz-Copy-Source"}
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_numbers, _commits = count(), count(1)


def in_words_of_s3(headers: dict[str, str]) -> dict[str, str]:
    """The headers of a request to Google's store as S3 names them, with the signature that a store of S3's asks for."""
    renamed = {RENAMED.get(name, name): value for name, value in headers.items()}
    if "If-None-Match" in renamed:
        # Only where there is no generation of the object.
        renamed["If-None-Match"] = {"0": "*"}[renamed["If-None-Match"]]
    return {**renamed, "Authorization": SIGNED}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        number = next(_numbers)
        if IS_FLAKY and number % 3 == 2:
            self._answer(*SLOW_DOWN)
            return
        if IS_FLAKY and number % 7 == 0:
            time.sleep(0.3)
        # Without a type, urllib says that a body is a form; another one than none would not be what was signed.
        headers = {"Content-Type": "", **{name.title(): value for name, value in self.headers.items()}}
        headers.pop("Accept-Encoding", None)
        if IS_GOOGLE:
            headers = in_words_of_s3(headers)
        is_lost = IS_FLAKY and headers.get("If-None-Match") == "*" and next(_commits) % 5 == 0
        request = urllib.request.Request(TARGET + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                answer = found.status, dict(found.headers), found.read()
            self._answer(*(SLOW_DOWN if is_lost else answer))
        except urllib.error.HTTPError as error:
            self._answer(error.code, dict(error.headers), error.read())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        is_head = self.command == "HEAD"
        for name, value in headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server"} and (
                is_head or name.lower() != "content-length"
            ):
                self.send_header(name, value)
        if not is_head:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not is_head:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(Handler, f"do_{method}", Handler.forward)
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
