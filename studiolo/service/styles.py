"""Styles of tenants' own: words, a weight and a style-LoRA in the store, kept until their tenant deletes them."""

from dataclasses import dataclass
from functools import partial

import pydantic
import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import ConflictError, UnacceptableError
from studiolo.portraits.styles import Style
from studiolo.service.database import Database
from studiolo.service.erasure import Elsewhere
from studiolo.service.records import NAME_PATTERN, is_id
from studiolo.service.tables import StyleRow, TenantRow
from studiolo.settings import Section
from studiolo.storage.store import Store

STYLE_NAME = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""How a style of one's own may be called."""


class Look(Section):
    """What a style adds to an order."""

    title: str = pydantic.Field("", max_length=200, pattern=NAME_PATTERN)
    """What people read; the name when empty."""
    description: str = pydantic.Field("", max_length=500, pattern=NAME_PATTERN)
    """One sentence about the look."""
    prompt: str = pydantic.Field("", max_length=500)
    """Words of every prompt: the trigger that the LoRA was trained with, and what else belongs to the look."""
    negative_prompt: str = pydantic.Field("", max_length=500)
    """What to keep away from."""
    weight: float = pydantic.Field(1.0, gt=0, le=2)
    """Of the LoRA."""


class StyleLora(Section):
    """The LoRA of a style."""

    sent_sha256: str
    """Of the file that was sent."""
    sha256: str
    """Of the file that is kept, which was written anew."""
    rank: int
    """Largest of its layers."""
    layers: int
    """Layers of the base that it changes."""


@dataclass(frozen=True)
class OwnStyle:
    """A style of a tenant."""

    id: str
    name: str
    look: Look
    lora: StyleLora
    created_at: float
    """Seconds since 1970."""

    def style(self) -> Style:
        """As orders take it; its LoRA is in the store, at `style_path`."""
        words = self.look.model_dump(include={"description", "prompt", "negative_prompt"})
        title = self.look.title or self.name
        return Style(name=self.name, title=title, multiplier_style=self.look.weight, **words)


def style_path(style_id: str) -> str:
    """Where the LoRA of a style lies, relative to the store."""
    return f"styles/{style_id}/lora.safetensors"


class Styles:
    """The styles in `database`, their files in `store`; at most `most` of a tenant."""

    def __init__(self, database: Database, store: Store, most: int) -> None:
        self.database, self.store, self.most = database, store, most

    def add(self, tenant_id: str, style_id: str, name: str, look: Look, lora: StyleLora) -> OwnStyle:
        """A new style with an id of `new_id("style")`, its file in the store; one that is there is only returned.

        Raises `ConflictError` when the tenant has another of that name, `UnacceptableError` when it has too many.
        """

        def add(session: Session) -> OwnStyle:
            session.get_one(
                TenantRow, tenant_id, with_for_update={"key_share": True}
            )  # one style of a tenant at a time
            same = session.scalars(sa.select(StyleRow).filter_by(tenant_id=tenant_id, name=name)).first()
            if same is not None:
                there = _style(same)
                if same.ending_at is None and (there.look, there.lora.sent_sha256) == (look, lora.sent_sha256):
                    return there
                raise ConflictError("style_name", f"There is another style called {name!r}; delete it first.")
            count = sa.select(sa.func.count()).select_from(StyleRow).filter_by(tenant_id=tenant_id)
            if session.scalars(count).one() >= self.most:
                raise UnacceptableError("too_many_styles", f"You have {self.most} styles; delete one first.")
            row = StyleRow(id=style_id, tenant_id=tenant_id, name=name, created_at=self.database.now(session))
            row.look, row.lora = look.model_dump(), lora.model_dump()
            session.add(row)
            return _style(row)

        return self.database.write(add)

    def get(self, tenant_id: str, style_id: str) -> OwnStyle | None:
        """The tenant's style; None for one that is not there or another's."""
        return self._one(tenant_id, StyleRow.id == style_id) if is_id(style_id) else None

    def named(self, tenant_id: str, name: str) -> OwnStyle | None:
        """The tenant's style of that name."""
        return self._one(tenant_id, StyleRow.name == name)

    def all(self, tenant_id: str) -> list[OwnStyle]:
        """The tenant's styles, by name."""
        query = sa.select(StyleRow).filter_by(tenant_id=tenant_id, ending_at=None).order_by(StyleRow.name)
        return self.database.read(lambda session: [_style(row) for row in session.scalars(query)])

    def end(self, tenant_id: str, style_id: str) -> bool:
        """Begin to delete the tenant's style: nobody finds it any more. False for none, and for another's."""

        def end(session: Session) -> bool:
            row = session.get(StyleRow, style_id, with_for_update=True) if is_id(style_id) else None
            if row is None or row.tenant_id != tenant_id:
                return False
            row.ending_at = row.ending_at or self.database.now(session)
            return True

        return self.database.write(end)

    def finish(self, elsewhere: Elsewhere) -> int:
        """Remove what is left of styles whose deletion was begun, in store and samplers; how many.

        Raises `StoreError`, and what `elsewhere` raises; called again it goes on.
        """
        query = sa.select(StyleRow.id).where(StyleRow.ending_at.is_not(None))
        begun = self.database.read(lambda session: list(session.scalars(query)))
        for style_id in begun:
            self.store.remove(style_path(style_id))
            elsewhere(style_id)
            self.database.write(partial(_delete, style_id))
        return len(begun)

    def _one(self, tenant_id: str, which: sa.ColumnElement[bool]) -> OwnStyle | None:
        query = sa.select(StyleRow).where(StyleRow.tenant_id == tenant_id, StyleRow.ending_at.is_(None), which)

        def look(session: Session) -> OwnStyle | None:
            row = session.scalars(query).first()
            return None if row is None else _style(row)

        return self.database.read(look)


def _style(row: StyleRow) -> OwnStyle:
    look, lora = Look.model_validate(row.look), StyleLora.model_validate(row.lora)
    return OwnStyle(row.id, row.name, look, lora, row.created_at)


def _delete(style_id: str, session: Session) -> None:
    session.execute(sa.delete(StyleRow).filter_by(id=style_id))
