"""The hashes of the pixels of pictures that were made here."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "pixels",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_pixels_job_id"),
        sa.PrimaryKeyConstraint("sha256", "job_id", name="pk_pixels"),
    )
    op.create_index("ix_pixels_job_id", "pixels", ["job_id"])
