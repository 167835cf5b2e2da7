"""A tenant's server: takes webhooks on this machine and answers as it is told."""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What came in; `answers` are used up one after another, then it is 200."""

    port: int = 0
    answers: list[int | str] = field(default_factory=list)
    """A status, or `drip` for an answer that never ends."""
    location: str = ""
    """Where redirects lead."""
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """Headers, in lower case, and bodies."""

    @classmethod
    @contextmanager
    def started(cls, tls: ssl.SSLContext | None = None) -> Iterator["Receiver"]:
        """A server that runs in a thread."""
        receiver = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
                answer = receiver.answers.pop(0) if receiver.answers else 200
                if answer == "drip":
                    self._drip()
                    return
                self.send_response(int(answer))
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.end_headers()

            def do_GET(self) -> None:
                receiver.posts.append(({}, b"GET"))
                self.send_response(200)
                self.end_headers()

            def _drip(self) -> None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                until_s = time.monotonic() + 60
                while time.monotonic() < until_s:
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
                    time.sleep(0.05)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join(30)
            server.server_close()
