"""A store that refuses every request, as one does whose credentials have expired.

A process of its own: delta-rs holds Python's lock while it waits for an answer. It prints its port: `python refusing_store.py`.
"""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class Handler(BaseHTTPRequestHandler):
    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(Handler, f"do_{method}", Handler.refuse)
with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
