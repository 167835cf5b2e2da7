"""Routes of jobs: looking, listing, cancelling, fetching pictures."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from studiolo.errors import NotFoundError
from studiolo.portraits.requests import PortraitsResult, request_of
from studiolo.service.records import Job, Kind, State
from web.endpoint import Endpoint, Here, TheJob, Who, found_job
from web.types import IDENTITY_PATTERN, CurvePoint, ImageView, JobPage, JobView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

Limit = Annotated[int, Query(ge=1, le=100, description="Most items in one part.")]
Before = Annotated[str | None, Query(max_length=64, description="`next` of the part before.")]


@router.get("")
def list_jobs(
    here: Here,
    who: Who,
    kind: Kind | None = None,
    state: State | None = None,
    identity_id: Annotated[str | None, Query(pattern=IDENTITY_PATTERN)] = None,
    limit: Limit = 20,
    before: Before = None,
    *,
    request: Request,
) -> JobPage:
    """Your jobs, newest first."""
    page = here.service.queue.page(
        who.tenant_id, kind=kind, state=state, identity_id=identity_id, limit=limit, before=before
    )
    return JobPage(data=[job_view(here, request, job) for job in page.items], next=page.next)


@router.get("/{job_id}")
def get_job(job: TheJob, here: Here, request: Request) -> JobView:
    """One job; a waiting one with its place in the queue."""
    position = here.service.queue.position(job.tenant_id, job.id) if job.state == State.QUEUED else None
    return job_view(here, request, job, position)


@router.delete("/{job_id}")
def cancel_job(job: TheJob, here: Here, request: Request) -> JobView:
    """Cancel a job; one that has ended stays as it is."""
    return job_view(here, request, here.service.queue.cancel(job.tenant_id, job.id) or job)


@router.get(
    "/{job_id}/images/{number}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/png": {}},
            "description": "The PNG, with its settings and a signed C2PA manifest inside.",
        }
    },
)
def get_image(
    job: TheJob,
    number: Annotated[int, Path(ge=0, le=10_000, description="From 0, best first.", examples=[0])],
    here: Here,
) -> Response:
    """One portrait of a job that has succeeded and has not expired."""
    images = result_of(job).images
    if number >= len(images):
        raise NotFoundError("image", f"There is no image {number}: the job is {job.state} and has {len(images)}.")
    content = here.service.store.read_bytes(images[number].path)
    headers = {"ETag": f'"{images[number].sha256}"', "Cache-Control": "private, no-cache"}
    return Response(content, media_type="image/png", headers=headers)


def result_of(job: Job) -> PortraitsResult:
    """What came of a job of portraits, as long as it is kept: pictures only of one that has succeeded."""
    if job.kind != Kind.PORTRAITS or job.result is None:
        return PortraitsResult(images=())
    result = PortraitsResult.model_validate(job.result)
    return result if job.state == State.SUCCEEDED else result.model_copy(update={"images": ()})


def job_view(here: Endpoint, request: Request, job: Job, position: int | None = None) -> JobView:
    """A job as its tenant sees it."""
    result = result_of(job)
    portraits = job.kind == Kind.PORTRAITS
    same = ("id", "request_id", "kind", "state", "reason", "sentence", "identity_id", "request")
    steps = ("steps", "steps_done", "attempts")
    times = ("created_at", "deadline_at", "started_at", "finished_at")
    return JobView(
        **{name: getattr(job, name) for name in (*same, *steps, *times)},
        curve=[CurvePoint(step=step, loss=loss) for step, loss in job.curve or ()],
        expires_at=job.result_until,
        position=position,
        seed=request_of(job.request).job_seed(job.id) if portraits else None,
        images=[
            ImageView(
                url=here.url(request, f"/v1/jobs/{job.id}/images/{number}"),
                **image.model_dump(include=set(ImageView.model_fields) - {"url"}),
            )
            for number, image in enumerate(result.images)
        ],
        rejected=list(result.rejected),
        photos=[] if portraits else (job.result or {}).get("photos", []),
    )


def current_view(here: Endpoint, request: Request, tenant_id: str, job_id: str) -> JobView:
    """The job as it is now; raises `NotFoundError`."""
    return get_job(found_job(here, tenant_id, job_id), here, request)
