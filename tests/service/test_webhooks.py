"""Webhooks against a real server on this machine: signed, tried again, never led astray."""

import datetime
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from studiolo.errors import SettingsError, UnacceptableError
from studiolo.service.database import Database
from studiolo.service.keys import Caller, Keys
from studiolo.service.metrics import MemoryMeters
from studiolo.service.queue import JobQueue
from studiolo.service.records import Job
from studiolo.service.settings import ServiceSettings, WebhookSettings
from studiolo.service.webhooks import Delivery, Webhooks, check_url, new_secret, signed, verify
from tests.service.clock import Clock
from tests.service.receiver import Receiver
from tests.service.rows import portraits

SETTINGS = WebhookSettings(plain_http=True, networks=("127.0.0.0/8",), timeout_s=5, attempts=3, first_pause_s=10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver.started() as receiver:
        yield receiver


@pytest.fixture
def tenant(database: Database) -> tuple[Caller, str]:
    """A caller, and the secret of the webhooks."""
    keys = Keys(database)
    new = keys.create("shop")
    return keys.authenticate(new.token), new.webhook_secret


def ended(queue: JobQueue, tenant: tuple[Caller, str], url: str) -> Job:
    job = queue.submit(tenant[0].tenant_id, portraits(webhook_url=url))
    queue.cancel(job.tenant_id, job.id)
    return job


def delivery(webhooks: Webhooks, job: Job) -> Delivery:
    found = webhooks.get(job.tenant_id, job.id)
    assert found is not None
    return found


def local(receiver: Receiver) -> str:
    return f"http://127.0.0.1:{receiver.port}/hook?x=1"


def test_the_end_of_a_job_is_told_once_and_signed(
    queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver, clock: Clock
):
    webhooks = Webhooks(queue.database, SETTINGS)
    job = queue.submit(tenant[0].tenant_id, portraits(webhook_url=local(receiver), request_id="r-1"))
    assert (webhooks.deliver(), webhooks.get(job.tenant_id, job.id)) == (0, None)
    queue.cancel(job.tenant_id, job.id)
    assert (webhooks.deliver(), webhooks.deliver()) == (1, 0)
    ((headers, body),) = receiver.posts
    told = json.loads(body)
    assert (told["id"], told["state"], told["reason"]) == (job.id, "cancelled", "cancelled")
    assert told["request_id"] == "r-1"
    assert verify(tenant[1], headers, body, clock.now)
    assert (headers["content-type"], headers["host"]) == ("application/json", f"127.0.0.1:{receiver.port}")
    done = delivery(webhooks, job)
    assert (done.attempts, done.delivered_at, done.next_at, done.error) == (1, clock.now, None, "")
    assert webhooks.get("ten_b", job.id) is None


def test_a_signature_fits_one_body_one_secret_and_a_while():
    secret, body = new_secret(), b'{"id":"job_1"}'
    headers = signed(secret, "hook_1", 1000, body)
    assert verify(secret, headers, body, 1299)
    assert not verify(secret, headers, body, 1301)
    assert not verify(secret, headers, body + b" ", 1000)
    assert not verify(new_secret(), headers, body, 1000)
    assert not verify(secret, headers | {"webhook-id": "hook_2"}, body, 1000)
    assert not verify(secret, headers | {"webhook-timestamp": "1001"}, body, 1000)
    assert not verify(secret, headers | {"webhook-timestamp": "x"}, body, 1000)
    assert not verify(secret, {}, body, 1000)


def test_the_signature_is_the_standards_own():
    """The example of the specification of Standard Webhooks."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_it_is_tried_again_with_growing_pauses_and_then_given_up(
    queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver, clock: Clock
):
    meters = MemoryMeters()
    webhooks = Webhooks(queue.database, SETTINGS, meters=meters)
    job = ended(queue, tenant, local(receiver))
    receiver.answers = [500, 429, 503]
    for attempt, pause_s in ((1, 10), (2, 40)):
        assert webhooks.deliver() == 1
        now = delivery(webhooks, job)
        assert (now.attempts, now.next_at, now.delivered_at) == (attempt, clock.now + pause_s, None)
        clock.move(pause_s - 1)
        assert webhooks.deliver() == 0
        clock.move(1)
    webhooks.deliver()
    assert (delivery(webhooks, job).next_at, delivery(webhooks, job).error) == (None, "HTTP 503")
    clock.move(1e6)
    assert webhooks.deliver() == 0
    outcomes = {name: meters.total("studiolo_webhooks_total", outcome=name) for name in ("failed", "given_up")}
    assert outcomes == {"failed": 2, "given_up": 1}
    assert len({headers["webhook-id"] for headers, _ in receiver.posts}) == 1
    assert len({headers["webhook-timestamp"] for headers, _ in receiver.posts}) == 3


def test_what_fails_at_first_is_delivered_later(
    queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver, clock: Clock
):
    meters = MemoryMeters()
    webhooks = Webhooks(queue.database, SETTINGS, meters=meters)
    job = ended(queue, tenant, local(receiver))
    receiver.answers = [500]
    webhooks.deliver()
    clock.move(10)
    webhooks.deliver()
    assert delivery(webhooks, job).delivered_at == clock.now
    assert [one["outcome"] for one in meters.series("studiolo_webhooks_total")] == ["failed", "delivered"]


def test_a_receiver_that_is_gone_is_left_alone(queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver):
    webhooks = Webhooks(queue.database, SETTINGS)
    job = ended(queue, tenant, local(receiver))
    receiver.answers = [410]
    webhooks.deliver()
    assert (delivery(webhooks, job).next_at, delivery(webhooks, job).error) == (None, "HTTP 410")


def test_redirects_are_not_followed(queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver):
    webhooks = Webhooks(queue.database, SETTINGS)
    for status in (301, 302, 307, 308):
        job = ended(queue, tenant, local(receiver))
        receiver.answers, receiver.location = [status], f"http://127.0.0.1:{receiver.port}/elsewhere"
        webhooks.deliver()
        assert delivery(webhooks, job).error == f"HTTP {status}"
    assert len(receiver.posts) == 4


def test_slow_ones_hold_nobody_up(queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver):
    """A server that drips its answer a byte at a time answers every read in time, and never ends."""
    webhooks = Webhooks(queue.database, SETTINGS.model_copy(update={"timeout_s": 0.7}))
    jobs = [ended(queue, tenant, local(receiver)) for _ in range(4)]
    receiver.answers, began_s = ["drip"] * 3, time.monotonic()
    assert webhooks.deliver() == 4
    assert time.monotonic() - began_s < 5
    assert sorted(delivery(webhooks, job).error for job in jobs) == ["", *["no answer in 0.7 s"] * 3]


def test_nobody_there(queue: JobQueue, tenant: tuple[Caller, str], clock: Clock):
    webhooks = Webhooks(queue.database, SETTINGS)
    job = ended(queue, tenant, "http://127.0.0.1:1/")
    webhooks.deliver()
    assert (delivery(webhooks, job).error, delivery(webhooks, job).next_at) == ("ConnectError", clock.now + 10)


def test_a_killed_senders_webhooks_are_sent_again(
    queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver, clock: Clock
):
    webhooks = Webhooks(queue.database, SETTINGS)
    job = ended(queue, tenant, local(receiver))
    (lost,) = queue.database.write(lambda session: webhooks._claim(5, session))  # and it ends here
    assert webhooks.deliver() == 0
    clock.move(SETTINGS.timeout_s + 10)
    assert webhooks.deliver() == 1
    queue.database.write(lambda session: webhooks._settle(lost, None, session))  # of somebody who was only slow
    assert delivery(webhooks, job).attempts == 2
    assert delivery(webhooks, job).delivered_at == clock.now


# -- where it may lead


def test_private_addresses_are_never_called(queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver):
    public_only = Webhooks(queue.database, SETTINGS.model_copy(update={"networks": ()}))
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        job = ended(queue, tenant, f"http://{host}:{receiver.port}/")
        assert public_only.deliver() == 1
        told = delivery(public_only, job)
        assert (told.next_at, told.delivered_at) == (None, None), host
        assert "not public" in told.error, host
    assert receiver.posts == []


def test_a_name_is_resolved_once_and_that_address_is_called(
    queue: JobQueue, tenant: tuple[Caller, str], receiver: Receiver
):
    """A name that changes its mind between the look and the call leads nowhere."""
    asked: list[str] = []

    def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    webhooks = Webhooks(queue.database, SETTINGS, changing)
    job = ended(queue, tenant, f"http://hooks.example:{receiver.port}/hook")
    webhooks.deliver()
    assert asked == ["hooks.example"]
    assert delivery(webhooks, job).error == "ConnectError"  # nobody listens on the second loopback address
    assert receiver.posts == []
    named = Webhooks(queue.database, SETTINGS, lambda *_: ["127.0.0.1"])
    ended(queue, tenant, f"http://hooks.example:{receiver.port}/hook")
    named.deliver()
    assert receiver.posts[0][0]["host"] == f"hooks.example:{receiver.port}"


def certificate(folder: Path, name: str) -> ssl.SSLContext:
    """A server's side of TLS under a self-signed certificate, which lies in `cert.pem`."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(encoding))
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, form, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_certificates_are_checked_by_name_though_an_address_is_called(
    queue: JobQueue, tenant: tuple[Caller, str], tmp_path: Path
):
    settings = SETTINGS.model_copy(update={"plain_http": False, "ca_file": str(tmp_path / "cert.pem")})
    with Receiver.started(certificate(tmp_path, "hooks.example")) as receiver:
        webhooks = Webhooks(queue.database, settings, lambda *_: ["127.0.0.1"])
        good = ended(queue, tenant, f"https://hooks.example:{receiver.port}/")
        webhooks.deliver()
        other = ended(queue, tenant, f"https://other.example:{receiver.port}/")
        webhooks.deliver()
        assert delivery(webhooks, good).delivered_at is not None
        assert delivery(webhooks, other).error == "ConnectError"
        assert len(receiver.posts) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://x.org/",
        "ftp://x.org/",
        "file:///etc/passwd",
        "https://",
        "https://me:secret@x.org/",
        "https://y.org/",
        "https://x.org:99999/",
        "x.org",
        "",
    ],
)
def test_urls_that_are_never_called_are_refused_at_once(url: str):
    settings = WebhookSettings(hosts=("x.org",))
    assert check_url("https://x.org/hook", settings).host == "x.org"
    with pytest.raises(UnacceptableError) as refused:
        check_url(url, settings)
    assert (refused.value.status, refused.value.reason) == (422, "webhook_url")


def test_networks_have_to_be_networks():
    with pytest.raises(SettingsError, match=r"webhooks\.networks"):
        ServiceSettings.load(None, {"webhooks": {"networks": ["10.0.0.1/8"]}})
