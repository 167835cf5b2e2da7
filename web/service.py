"""Routes about the service itself: whether it lives, whether it is ready, what was used."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Query

import studiolo
from studiolo.service.records import Kind
from studiolo.service.usage import REQUESTS, STEPS
from web.endpoint import Here, Who
from web.types import Health, UsageList, UsageView

router = APIRouter(tags=["service"])

_COLUMNS = {REQUESTS: "requests", STEPS: "steps", Kind.PORTRAITS: "portraits", Kind.IDENTITY: "identities"}
_USUAL_DAYS = 30


@router.get("/healthz")
async def healthz() -> Health:
    """Whether this process lives; asks nobody else."""
    return Health(status="ok", version=studiolo.__version__)


@router.get("/readyz")
def readyz(here: Here) -> Health:
    """Whether requests can be taken: the database answers. Else 503."""
    here.service.queue.backlog(Kind.PORTRAITS)
    return Health(status="ok", version=studiolo.__version__)


@router.get("/v1/usage")
def get_usage(
    here: Here,
    who: Who,
    since: Annotated[datetime.date | None, Query(description="First day (UTC); 30 days ago when absent.")] = None,
) -> UsageList:
    """What each of your keys used, day by day."""
    first = since or datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=_USUAL_DAYS)
    days: dict[tuple[str, str], dict[str, int]] = {}
    for row in here.service.keys.usage(who.tenant_id, first.isoformat()):
        day = days.setdefault((row["day"], row["key_id"]), dict.fromkeys(_COLUMNS.values(), 0))
        day[_COLUMNS[row["what"]]] = row["amount"]
    return UsageList(data=[UsageView(day=day, key_id=key, **counts) for (day, key), counts in sorted(days.items())])
