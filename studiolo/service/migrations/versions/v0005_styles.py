"""Styles of tenants' own."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "styles",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("look", sa.Text(), nullable=False),
        sa.Column("lora", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ending_at", sa.Double()),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_styles_tenant_id"),
        sa.PrimaryKeyConstraint("id", name="pk_styles"),
        sa.UniqueConstraint("tenant_id", "name", name="uq_styles_tenant_id_name"),
    )
    op.create_index("ix_styles_tenant_id", "styles", ["tenant_id"])
    if op.get_bind().dialect.name == "postgresql":  # callers' words, see the first revision
        for column in ("name", "look"):
            op.execute(f"ALTER TABLE styles ALTER COLUMN {column} SET STATISTICS 0")
