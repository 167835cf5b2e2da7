"""Settings of the endpoint: frozen, typed, documented under each field, like those of the studio job."""

import pydantic

from studiolo.service.records import Kind
from studiolo.settings import Section


class QueueSettings(Section):
    """How accepted work is kept."""

    max_attempts: int = pydantic.Field(3, ge=1)
    """Attempts at a job; one that was begun and not given back in order counts."""
    portraits_deadline_s: float = pydantic.Field(3600.0, gt=0)
    """Deadline of portraits for which the caller named none."""
    identity_deadline_s: float = pydantic.Field(24 * 3600.0, gt=0)
    """Deadline of a training for which the caller named none."""
    result_days: float = pydantic.Field(7.0, gt=0)
    """Days after which the result of a job, and its files, are thrown away."""

    def deadline_s(self, kind: Kind) -> float:
        """The default of a kind."""
        return {Kind.IDENTITY: self.identity_deadline_s, Kind.PORTRAITS: self.portraits_deadline_s}[kind]
