"""Two hundred clients that send their albums a byte at a time, and the others, who notice nothing."""

import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from studiolo.service.keys import KeyLimits
from tests.web.server import served
from tests.web.world import World

CLIENTS = 200
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_two_hundred_slow_clients_hold_up_nobody(world: World) -> None:
    token = world.service.keys.create("slow", limits=KeyLimits(requests_per_s=1000, burst=10_000)).token
    head = (
        "POST /v1/identities HTTP/1.1\r\nHost: test\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        f"Content-Length: 100000\r\nAuthorization: Bearer {token}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="photos"; filename="x"\r\n\r\n'
    )
    with served(world.app) as url, ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        slow = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(CLIENTS)]
        for one in slow:
            one.sendall(head.encode() + b"\xff\xd8\xff\xe0")
        key = {"Authorization": f"Bearer {world.tokens['anna']}"}
        took_s = []
        with httpx.Client(base_url=url, headers=key, timeout=60) as quick:
            for _ in range(10):
                for one in slow:
                    one.sendall(b"x")
                began_s = time.monotonic()
                assert quick.post("/v1/portraits", json={"style": "studio"}).status_code == 202
                took_s.append(time.monotonic() - began_s)
        assert sorted(took_s)[5] < 8, took_s
    assert world.service.store.list("albums") == []  # all hung up
