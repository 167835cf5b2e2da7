"""Rows that tests put into the service's database."""

from typing import Any

from studiolo.service.database import Database
from studiolo.service.records import Kind, NewJob
from studiolo.service.tables import IdentityRow, TenantRow

NOBODY_SIGNS: Any = None
"""In place of a signer, where pixels are only remembered."""


def add_tenant(database: Database, name: str) -> str:
    """A tenant of that name; the id."""
    row = TenantRow(id=f"ten_{name[:8]}", name=name, webhook_secret="s", created_at=0.0)
    database.write(lambda session: session.add(row))
    return f"ten_{name[:8]}"


def add_identity(database: Database, tenant_id: str, number: int = 1) -> str:
    """An identity of a tenant; the id."""
    identity_id = f"id_{number:032x}"
    row = IdentityRow(id=identity_id, tenant_id=tenant_id, name="Anna", consent={}, created_at=0.0)
    database.write(lambda session: session.add(row))
    return identity_id


def portraits(**fields: Any) -> NewJob:
    """A small order."""
    return NewJob(**({"kind": Kind.PORTRAITS, "request": {"style": "studio"}, "steps": 30} | fields))
