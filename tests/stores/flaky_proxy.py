"""A proxy before a store that answers every third request with 503, and some of the others late."""

import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

TARGET = sys.argv[2]
_numbers = count()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
        number = next(_numbers)
        if number % 3 == 2:
            self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        if number % 7 == 0:
            time.sleep(0.3)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "accept-encoding"}
        # Without one, urllib says that a body is a form.
        headers.setdefault("Content-Type", "application/octet-stream")
        request = urllib.request.Request(TARGET + self.path, body, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as found:
                self._answer(found.status, dict(found.headers), found.read())
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
