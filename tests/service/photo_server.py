"""A host of photos: gives on this machine what it is told to, over TLS, and remembers who asked for what."""

import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DRIP = b"drip"
"""A body that comes byte by byte, for longer than anybody waits."""
FLOOD = b"flood"
"""A body without an end."""


@dataclass
class Given:
    """What a path gives."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class PhotoServer:
    """What there is, by path, and what was asked for."""

    port: int = 0
    paths: dict[str, Given] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Host header and path."""
    headers: dict[str, str] = field(default_factory=dict)
    """Of the last request, names in lower case."""
    sent: int = 0
    """Bytes of the last flood."""

    @classmethod
    @contextmanager
    def started(cls, tls: ssl.SSLContext) -> Iterator["PhotoServer"]:
        """A server that runs in a thread."""
        here = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                here.asked.append((self.headers["host"], self.path))
                here.headers = {name.lower(): value for name, value in self.headers.items()}
                given = here.paths.get(self.path, Given(404))
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                if given.body not in (DRIP, FLOOD):
                    self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                try:
                    self._write(given.body)
                except OSError:
                    self.close_connection = True

            def _write(self, body: bytes) -> None:
                if body not in (DRIP, FLOOD):
                    self.wfile.write(body)
                    return
                end_s, here.sent = time.monotonic() + 60, 0
                while time.monotonic() < end_s and here.sent < 2**30:
                    part = b"\xff" if body == DRIP else b"\xff\xd8\xff" + b"\0" * 65_533
                    self.wfile.write(part)
                    here.sent += len(part)
                    if body == DRIP:
                        time.sleep(0.05)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        here.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield here
        finally:
            server.shutdown()
            thread.join(30)
            server.server_close()
