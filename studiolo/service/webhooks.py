"""Webhooks: a job's end is posted to its tenant's server, signed, again and again until it is taken.

Signed as standardwebhooks.com says, so that receivers have libraries for it: `webhook-id`, `webhook-timestamp`, and
`webhook-signature: v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))`. The id stays the same in every try. Redirects
are not followed, and the connection goes to the address that was looked at.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx
import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import UnacceptableError
from studiolo.keys import canonical_json
from studiolo.service.addresses import Resolve, careful_client, pinned_request, resolve
from studiolo.service.database import Database
from studiolo.service.metrics import Meters, NoMeters
from studiolo.service.records import is_id
from studiolo.service.settings import WebhookSettings
from studiolo.service.tables import DeliveryRow, JobRow, TenantRow

_SECRET = "whsec_"
_GONE = 410


@dataclass(frozen=True)
class Delivery:
    """How far a job's webhook is. Times are seconds since 1970."""

    job_id: str
    url: str
    attempts: int
    next_at: float | None
    """None when it was delivered or given up."""
    delivered_at: float | None
    error: str
    """What the newest try came to grief on."""


@dataclass(frozen=True)
class _Due:
    id: str
    url: str
    body: bytes
    secret: str
    attempts: int
    at: float


class Webhooks:
    """The webhooks in `database` that are to be sent."""

    def __init__(
        self,
        database: Database,
        settings: WebhookSettings | None = None,
        resolver: Resolve = resolve,
        meters: Meters | None = None,
    ) -> None:
        self.database = database
        self.settings = settings or WebhookSettings()
        self.resolver = resolver
        self.meters = meters or NoMeters()

    def get(self, tenant_id: str, job_id: str) -> Delivery | None:
        """Of the tenant's job; None while it has not ended, without a webhook, and for another's."""

        def look(session: Session) -> Delivery | None:
            query = sa.select(DeliveryRow).join(JobRow).where(JobRow.id == job_id, JobRow.tenant_id == tenant_id)
            row = session.scalars(query).first() if is_id(job_id) else None
            names = Delivery.__dataclass_fields__
            return None if row is None else Delivery(**{name: getattr(row, name) for name in names})

        return self.database.read(look)

    def deliver(self, count: int = 16) -> int:
        """Send up to `count` webhooks that are due, all at once; how many were tried.

        Takes no longer than a try. Of a sender that is killed the webhooks are sent again by the next one.
        """
        due = self.database.write(partial(self._claim, count))
        if due:
            errors = asyncio.run(self._send_all(due))
            for item, error in zip(due, errors, strict=True):
                self.database.write(partial(self._settle, item, error))
        return len(due)

    def _claim(self, count: int, session: Session) -> list[_Due]:
        now = self.database.now(session)
        query = (
            sa.select(DeliveryRow, TenantRow.webhook_secret)
            .join(JobRow, JobRow.id == DeliveryRow.job_id)
            .join(TenantRow, TenantRow.id == JobRow.tenant_id)
            .where(DeliveryRow.next_at <= now)
            .order_by(DeliveryRow.next_at)
            .limit(count)
            .with_for_update(of=DeliveryRow, skip_locked=True)
        )
        due = []
        for row, secret in session.execute(query):
            row.attempts += 1
            row.next_at = now + self.settings.timeout_s + self._pause_s(row.attempts)
            due.append(_Due(row.id, row.url, canonical_json(row.body).encode(), secret, row.attempts, now))
        return due

    def _settle(self, due: _Due, error: "_Failed | None", session: Session) -> None:
        row = session.get(DeliveryRow, due.id, with_for_update=True)
        if row is None or row.attempts != due.attempts:
            return  # erased, or somebody else tries by now
        now = self.database.now(session)
        if error is None:
            row.delivered_at, row.next_at, row.error = now, None, ""
            outcome = "delivered"
        else:
            final = error.final or row.attempts >= self.settings.attempts
            row.next_at, row.error = None if final else now + self._pause_s(row.attempts), error.text
            outcome = "given_up" if final else "failed"
        self.database.when_kept(session, lambda: self.meters.count("studiolo_webhooks_total", outcome=outcome))

    def _pause_s(self, attempts: int) -> float:
        return min(self.settings.first_pause_s * 4.0 ** (attempts - 1), self.settings.longest_pause_s)

    async def _send_all(self, due: list[_Due]) -> "list[_Failed | None]":
        async with careful_client(self.settings.ca_file) as client:
            return list(await asyncio.gather(*(self._send(client, item) for item in due)))

    async def _send(self, client: httpx.AsyncClient, due: _Due) -> "_Failed | None":
        """None when it was taken."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):  # of all together: a server may also drip
                url = check_url(due.url, self.settings)
                request = await pinned_request(
                    client,
                    "POST",
                    url,
                    {"content-type": "application/json", **signed(due.secret, due.id, int(due.at), due.body)},
                    self.settings.networks,
                    self.resolver,
                    due.body,
                )
                response = await client.send(request, stream=True, follow_redirects=False)
                await response.aclose()
        except UnacceptableError as error:
            return _Failed(error.sentence, final=True)
        except TimeoutError:
            return _Failed(f"no answer in {self.settings.timeout_s:g} s")
        except Exception as error:  # of the network, TLS, HTTP: one receiver's oddities must stay its own
            return _Failed(type(error).__name__)
        if response.is_success:
            return None
        return _Failed(f"HTTP {response.status_code}", final=response.status_code == _GONE)


@dataclass(frozen=True)
class _Failed:
    text: str
    final: bool = False


def check_url(url: str, settings: WebhookSettings) -> httpx.URL:
    """The URL of a webhook. Raises `UnacceptableError` for one that is never called, before anything is resolved."""
    schemes = ("https", "http") if settings.plain_http else ("https",)
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise UnacceptableError("webhook_url", "The webhook's URL is none.") from None
    sound = parsed.host and not parsed.userinfo and 0 < (parsed.port or 443) < 65_536
    if parsed.scheme not in schemes or not sound:
        wanted = " or ".join(f"{scheme}://HOST/PATH" for scheme in schemes)
        raise UnacceptableError("webhook_url", f"The webhook's URL has to be like {wanted}, without a password.")
    if settings.hosts and parsed.host not in settings.hosts:
        raise UnacceptableError("webhook_url", "The webhook's host is not among those that are called.")
    return parsed


def new_secret() -> str:
    """A secret to sign with."""
    return _SECRET + base64.b64encode(secrets.token_bytes(32)).decode()


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that sign `body`; `timestamp` in seconds since 1970."""
    key = base64.b64decode(secret.removeprefix(_SECRET))
    digest = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float, tolerance_s: float = 300.0) -> bool:
    """Whether a webhook that came in is ours and fresh: what a receiver does. `headers` in lower case."""
    try:
        timestamp = int(headers["webhook-timestamp"])
        wanted = signed(secret, headers["webhook-id"], timestamp, body)["webhook-signature"]
        return abs(now - timestamp) <= tolerance_s and hmac.compare_digest(wanted, headers["webhook-signature"])
    except (KeyError, ValueError, TypeError):
        return False
