"""API keys: made, looked up, revoked. Of a key's secret only the hash is kept, so it is shown once.

A key is `studiolo_PREFIX_SECRET`. The prefix is public and finds the row; the secret has 256 random bits, so that one
round of sha256 is all a guesser would need to be stopped by, and nothing is to be stretched.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Any

import pydantic
import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import SettingsError, UnauthorisedError, nearest
from studiolo.service.database import Database
from studiolo.service.records import new_id
from studiolo.service.settings import LimitSettings
from studiolo.service.tables import KeyRow, TenantRow
from studiolo.service.usage import usage
from studiolo.service.webhooks import new_secret
from studiolo.settings import Section

_TOKEN = re.compile(r"studiolo_([0-9a-f]{10})_[A-Za-z0-9_-]{43}")
_NO_HASH = "0" * 64


class KeyLimits(Section):
    """Limits of one key, where they differ from the settings'; see `LimitSettings`."""

    requests_per_s: float | None = pydantic.Field(None, gt=0)
    """Requests a second in the long run."""
    burst: int | None = pydantic.Field(None, ge=1)
    """Requests at once, after a pause."""
    portraits_per_day: int | None = pydantic.Field(None, ge=0)
    """Portraits asked for in a day (UTC)."""
    identities_per_day: int | None = pydantic.Field(None, ge=0)
    """Trainings asked for in a day (UTC)."""
    open_jobs: int | None = pydantic.Field(None, ge=1)
    """Jobs that wait or run at a time."""

    def over(self, default: LimitSettings) -> LimitSettings:
        """`default` with what this key has of its own."""
        return default.model_copy(update=self.model_dump(exclude_none=True))


@dataclass(frozen=True)
class Caller:
    """Who asks, after the key was found good."""

    tenant_id: str
    key_id: str
    limits: KeyLimits


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret. Times are seconds since 1970."""

    id: str
    prefix: str
    tenant: str
    name: str
    limits: KeyLimits
    created_at: float
    expires_at: float | None
    revoked_at: float | None

    def state(self, now: float) -> str:
        """active | expired | revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True)
class NewKey:
    """What is shown once."""

    key: ApiKey
    token: str
    webhook_secret: str
    """Of the tenant: its webhooks are signed with it."""


class Keys:
    """The API keys in `database`; can be pickled."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, tenant: str, name: str = "", limits: KeyLimits | None = None, days: float | None = None) -> NewKey:
        """A new key of the tenant of that name, who is made when there is none; it ends after `days`, if given.

        Raises `SettingsError` for a name that is empty or too long.
        """
        if not 1 <= len(tenant) <= 200 or len(name) > 200 or not (tenant + name + "x").isprintable():
            raise SettingsError(f"keys: got tenant {tenant!r} and name {name!r}, wanted up to 200 printable characters")
        prefix, limits = secrets.token_hex(5), limits or KeyLimits()
        token = f"studiolo_{prefix}_{secrets.token_urlsafe(32)}"
        key_id, tenant_id, webhook_secret = new_id("key"), new_id("ten"), new_secret()

        def create(session: Session) -> NewKey:
            now = self.database.now(session)
            owner = session.scalars(sa.select(TenantRow).filter_by(name=tenant)).first()
            if owner is None:
                owner = TenantRow(id=tenant_id, name=tenant, webhook_secret=webhook_secret, created_at=now)
                session.add(owner)
                session.flush()
            row = session.get(KeyRow, key_id)
            if row is None:  # else the answer to an earlier try was lost
                row = KeyRow(id=key_id, tenant_id=owner.id, name=name, prefix=prefix, sha256=_sha256(token))
                row.limits, row.created_at = limits.model_dump(exclude_none=True), now
                row.expires_at = None if days is None else now + days * 86_400
                session.add(row)
                session.flush()
            return NewKey(_key(row, owner), token, owner.webhook_secret)

        return self.database.write(create)

    def authenticate(self, token: str) -> Caller:
        """Who has this key. Raises `UnauthorisedError`, which tells a stranger nothing."""
        matched = _TOKEN.fullmatch(token)
        if matched is None:  # the database is not asked
            raise UnauthorisedError("unknown_key", "This API key is not known.")
        prefix = matched.group(1)

        def look(session: Session) -> tuple[KeyRow | None, float]:
            row = session.scalars(sa.select(KeyRow).filter_by(prefix=prefix)).first()
            return row, self.database.now(session)

        row, now = self.database.read(look)
        known = hmac.compare_digest(row.sha256 if row else _NO_HASH, _sha256(token))
        if row is None or not known:
            raise UnauthorisedError("unknown_key", "This API key is not known.")
        if row.revoked_at is not None:
            raise UnauthorisedError("revoked_key", "This API key was revoked.")
        if row.expires_at is not None and row.expires_at <= now:
            raise UnauthorisedError("expired_key", "This API key has expired.")
        return Caller(row.tenant_id, row.id, KeyLimits.model_validate(row.limits))

    def all(self) -> list[ApiKey]:
        """Every key of every tenant, in the order of their making."""

        def look(session: Session) -> list[ApiKey]:
            query = sa.select(KeyRow, TenantRow).join(TenantRow, TenantRow.id == KeyRow.tenant_id).order_by(KeyRow.id)
            return [_key(row, tenant) for row, tenant in session.execute(query)]

        return self.database.read(look)

    def revoke(self, prefix: str) -> ApiKey:
        """End the key with that prefix at once, for good. Raises `SettingsError` when there is none."""

        def revoke(session: Session) -> bool:
            row = session.scalars(sa.select(KeyRow).filter_by(prefix=prefix)).first()
            if row is not None and row.revoked_at is None:
                row.revoked_at = self.database.now(session)
            return row is not None

        found = prefix.isprintable() and self.database.write(revoke)
        keys = {key.prefix: key for key in self.all()}
        if not found:
            hint = nearest(prefix, keys) if keys else "there are no keys"
            raise SettingsError(f"keys: no key has the prefix {prefix!r}; {hint}")
        return keys[prefix]

    def usage(self, tenant_id: str, since_day: str) -> list[dict[str, Any]]:
        """What the tenant's keys used from a day (YYYY-MM-DD) on: rows of key_id, day, what, amount."""

        def look(session: Session) -> list[dict[str, Any]]:
            rows = usage(session, tenant_id, since_day)
            return [{"key_id": row.key_id, "day": row.day, "what": row.what, "amount": row.amount} for row in rows]

        return self.database.read(look)


def _key(row: KeyRow, tenant: TenantRow) -> ApiKey:
    limits = KeyLimits.model_validate(row.limits)
    times = (row.created_at, row.expires_at, row.revoked_at)
    return ApiKey(row.id, row.prefix, tenant.name, row.name, limits, *times)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
