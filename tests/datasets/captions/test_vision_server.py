"""Against a server on this machine that speaks OpenAI's protocol and has its bad days."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from PIL import Image

from studiolo.datasets.captions.captioner import FACE_PROMPT, PERSON_PROMPT
from studiolo.datasets.captions.settings import VisionServerSettings
from studiolo.datasets.captions.vision_server import VisionServer, retry_after_s
from studiolo.datasets.records import WHOLE
from studiolo.errors import CaptionError
from tests.datasets.drawn import annotation

Reply = tuple[int, dict[str, str], Any]


class VisionModel:
    """Answers with `answer(number of the request, request)`; keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self.answer: Callable[[int, dict[str, Any]], Reply] = lambda number, request: said(request)
        self._at_once, self._lock = 0, threading.Lock()

    def __call__(self, request: dict[str, Any], headers: dict[str, str]) -> Reply:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.answer(number, request)
        finally:
            with self._lock:
                self._at_once -= 1


def prompt_of(request: dict[str, Any]) -> str:
    return request["messages"][0]["content"][0]["text"]


def picture_of(request: dict[str, Any]) -> Image.Image:
    url = request["messages"][0]["content"][1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True)))


def said(request: dict[str, Any], text: str | None = None) -> Reply:
    default = "A woman in blue." if prompt_of(request) == PERSON_PROMPT else "Her eyes are open. Her nose is long."
    message = {"role": "assistant", "content": default if text is None else text}
    body = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 600, "completion_tokens": 10, "total_tokens": 610},
    }
    return 200, {}, body


@pytest.fixture
def server() -> Iterator[tuple[str, VisionModel]]:
    """Base URL and the model behind it."""
    model = VisionModel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, body = model(request, dict(self.headers.items()))
            if self.path != "/v1/chat/completions":
                status, body = 404, {"error": f"no {self.path}"}
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}/v1", model
    httpd.shutdown()
    httpd.server_close()
    thread.join(10)


def captioner(url: str, **changes: Any) -> VisionServer:
    quick: dict[str, Any] = {"pause_s": 0.02, "attempts": 3, "timeout_s": 5.0, "side_px": 64, "in_flight": 3}
    made = VisionServer(VisionServerSettings(url=url, model="eyes-1", **{**quick, **changes}))
    made.open()
    return made


def test_each_picture_is_described_by_both_prompts(server):
    url, model = server
    told = captioner(url)([annotation(number) for number in range(3)])
    assert [[caption["part"] for caption in captions] for captions in told] == [[WHOLE, "eyes", "nose"]] * 3
    assert sorted(map(prompt_of, model.requests)) == sorted([PERSON_PROMPT, FACE_PROMPT] * 3)
    assert {picture_of(request).size for request in model.requests} == {(64, 64)}
    assert all(request["model"] == "eyes-1" and request["temperature"] == 0 for request in model.requests)


def test_the_official_client_speaks_to_the_same_server(server):
    """The server of this test speaks the protocol, not only what our client expects of it."""
    url, _ = server
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
    content = [{"type": "text", "text": PERSON_PROMPT}]
    reply = client.chat.completions.create(model="eyes-1", messages=[{"role": "user", "content": content}])
    assert reply.choices[0].message.content == "A woman in blue."
    assert reply.usage.total_tokens == 610


def test_no_more_requests_at_once_than_allowed(server):
    url, model = server

    def slowly(number: int, request: dict[str, Any]) -> Reply:
        time.sleep(0.05)
        return said(request)

    model.answer = slowly
    captioner(url, in_flight=3)([annotation(number) for number in range(8)])
    assert len(model.requests) == 16
    assert 2 <= model.most_at_once <= 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_the_pause_it_names(server, status: int):
    url, model = server
    model.answer = lambda number, request: (status, {"Retry-After": "0.4"}, {}) if number == 0 else said(request)
    made = captioner(url)
    (captions,) = made([annotation()])
    assert captions[0]["text"] == "A woman in blue."
    assert model.times[1] - model.times[0] >= 0.4
    assert (made.usage.requests, made.usage.repeated) == (3, 1)


def test_pauses_grow_and_are_cut(server):
    url, model = server
    model.answer = lambda number, request: (429, {"Retry-After": "3600"}, {}) if number < 2 else said(request)
    began = time.monotonic()
    captioner(url, longest_pause_s=0.1)([annotation()])
    assert time.monotonic() - began < 5
    model.answer = lambda number, request: (500, {}, {})
    model.times.clear()
    with pytest.raises(CaptionError, match="no answer in 3 attempts: status 500"):
        captioner(url, pause_s=0.1)([annotation()])
    first, second = (after - before for before, after in zip(model.times, model.times[1:], strict=False))
    assert first >= 0.1
    assert second >= 0.2


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"{}", b'{"choices": []}', b"[]"])
def test_an_answer_that_is_none_is_asked_for_again(server, body: bytes):
    url, model = server
    model.answer = lambda number, request: (200, {}, body) if number == 0 else said(request)
    assert captioner(url)([annotation()])[0]
    assert len(model.requests) == 3


def test_a_refused_picture_has_no_caption_and_the_others_theirs(server):
    url, model = server

    def picky(number: int, request: dict[str, Any]) -> Reply:
        return (400, {}, {"error": "content policy"}) if picture_of(request).size == (32, 32) else said(request)

    model.answer = picky
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG")
    made = captioner(url)
    told = made([annotation(0), annotation(1, image={"bytes": buffer.getvalue(), "path": None}), annotation(2)])
    assert [bool(captions) for captions in told] == [True, False, True]
    assert made.usage.refused == 1
    model.answer = lambda number, request: said(request, "")
    assert captioner(url)([annotation()]) == [[]]


def test_a_server_that_refuses_everything_or_us_ends_the_work(server):
    url, model = server
    model.answer = lambda number, request: (400, {}, {"error": "this model does not see"})
    with pytest.raises(CaptionError, match=r"refuses all of 8 pictures .* is 'eyes-1' one"):
        captioner(url)([annotation(number) for number in range(8)])
    model.answer = lambda number, request: (401, {}, {"error": "bad key"})
    model.requests.clear()
    with pytest.raises(CaptionError, match=r"401.*check its URL, model and key"):
        captioner(url, in_flight=1)([annotation(number) for number in range(3)])
    assert len(model.requests) == 1


def test_a_server_that_is_away_is_named():
    with pytest.raises(
        CaptionError, match=r"http://127\.0\.0\.1:9/v1/chat/completions gave no answer in 2 attempts: Conn"
    ):
        captioner("http://127.0.0.1:9/v1", attempts=2)([annotation()])


def test_a_server_that_never_answers_is_given_up(server):
    url, model = server
    ended = threading.Event()

    def silent(number: int, request: dict[str, Any]) -> Reply:
        ended.wait(60)
        return said(request)

    model.answer = silent
    with pytest.raises(CaptionError, match="ReadTimeout"):
        captioner(url, timeout_s=0.2, attempts=1)([annotation()])
    ended.set()


def test_tokens_and_their_cost_are_counted(server):
    url, _ = server
    made = captioner(url, prompt_price=2.5, completion_price=10.0)
    made([annotation(number) for number in range(2)])
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (2400, 40)
    assert made.usage.cost == pytest.approx(2400 * 2.5e-6 + 40 * 10e-6)
    made.open()
    assert made.usage.cost == 0


def test_the_key_is_sent_and_not_part_of_the_id(server, monkeypatch: pytest.MonkeyPatch):
    url, model = server
    without = captioner(url)
    without([annotation()])
    monkeypatch.setenv("STUDIOLO_CAPTION_API_KEY", "geheim")
    made = captioner(url)
    made([annotation()])
    assert "Authorization" not in model.headers[0]
    assert model.headers[-1]["Authorization"] == "Bearer geheim"
    assert made.id == without.id == captioner("http://elsewhere/v1", in_flight=1).id
    assert made.id != captioner(url, max_new_tokens=64).id


def test_retry_after_is_a_number_or_a_date():
    assert retry_after_s("7", 0.0) == 7
    assert retry_after_s(formatdate(1_000_030, usegmt=True), 1_000_000.0) == pytest.approx(30)
    assert retry_after_s(formatdate(1_000_000, usegmt=True), 1_000_030.0) == 0
    assert retry_after_s("soon", 0.0) is None
    assert retry_after_s(None, 0.0) is None
