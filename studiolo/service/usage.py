"""What each key used on each day (UTC)."""

import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from studiolo.service.tables import KeyRow, UsageRow

REQUESTS, STEPS = "requests", "steps"


def day_of(now: float) -> str:
    """YYYY-MM-DD (UTC) of seconds since 1970."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC).date().isoformat()


def until_tomorrow_s(now: float) -> float:
    """Seconds until the next day (UTC) begins."""
    return 86_400 - now % 86_400


def count(session: Session, key_id: str, what: str, amount: int, now: float) -> None:
    """Add to what the key used today."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(UsageRow).values(key_id=key_id, day=day_of(now), what=what, amount=amount)
    session.execute(
        insert.on_conflict_do_update(
            index_elements=[UsageRow.key_id, UsageRow.day, UsageRow.what],
            set_={"amount": UsageRow.amount + insert.excluded.amount},
        )
    )


def used(session: Session, key_id: str, what: str, now: float) -> int:
    """What the key used today."""
    row = session.get(UsageRow, (key_id, day_of(now), what))
    return 0 if row is None else row.amount


def usage(session: Session, tenant_id: str, since_day: str) -> list[UsageRow]:
    """What all keys of the tenant used, by key and day, from `since_day` (YYYY-MM-DD) on."""
    query = sa.select(UsageRow).join(KeyRow).where(KeyRow.tenant_id == tenant_id, UsageRow.day >= since_day)
    return list(session.scalars(query.order_by(UsageRow.day, UsageRow.key_id, UsageRow.what)))
