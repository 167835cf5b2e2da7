"""What the page shows, as HTML: pure functions over what `/v1` answers.

Gradio puts a `gr.HTML` value into the document as it stands, so every value goes through a template that escapes it.
"""

import base64
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from studiolo.albums.records import Reason
from studiolo.service.endpoint import PageSettings
from studiolo.service.identities import IdentityState
from studiolo.service.records import Kind, State
from web.page.photos import Dropped, Template
from web.types import CurvePoint, ErasureView, IdentityView, JobPage, JobView, StyleView

_CURVE_PX = (560, 150)
_CURVE_POINTS = 120
_NOBODY = "nobody in particular"
_IN_WORDS = "In your own words"
_STATES = {
    State.QUEUED: "waiting",
    State.RUNNING: "in work",
    State.SUCCEEDED: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
_PEOPLE = {
    IdentityState.TRAINING: "being learned",
    IdentityState.READY: "ready",
    IdentityState.FAILED: "not learned",
    IdentityState.ERASING: "being erased",
}
_STAGES = {
    "denoise": "Drawing",
    "finish": "Enlarging, fusing and judging",
    "train": "Learning the face",
}


@lru_cache(maxsize=1)
def templates() -> jinja2.Environment:
    """Those of the page: markup in values is escaped, a name that nobody gave is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(moment=moment, likeness=likeness, share=share)
    made.globals.update(State=State, Kind=Kind, Reason=Reason)
    return made


def moment(at_s: float | None) -> str:
    """A time (seconds since 1970) in words."""
    if at_s is None:
        return ""
    when = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
    return f"{when.day} {when:%b %Y, %H:%M} UTC"


def likeness(similarity: float | None) -> str:
    """A calibrated similarity (0 to 1) in words; empty without one."""
    return "" if similarity is None else f"likeness {similarity:.2f}"


def share(done: int, total: int) -> int:
    """Whole per cent of `total`, 0 to 100."""
    return 0 if total <= 0 else min(100, round(100 * done / total))


def span(seconds: float) -> str:
    """A wait in words, rounded."""
    if seconds < 50:
        return "less than a minute"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {round(minutes / 60)} h"


def notice(sentence: str, kind: str = "note") -> str:
    """A sentence that is read out: `note`, `good` or `bad`."""
    return _shown("notice.html.j2", sentence=sentence, kind=kind)


def empty(title: str, sentence: str) -> str:
    """What stands where nothing is yet."""
    return _shown("empty.html.j2", title=title, sentence=sentence)


def header() -> str:
    """Top of the page."""
    return _shown("header.html.j2")


def dropped(photos: Sequence[Dropped]) -> str:
    """The photos of an album that was not sent yet, each with its verdict."""
    return _shown("dropped.html.j2", photos=photos) if photos else ""


def template(found: Template) -> str:
    """A picture that is to be edited, its faces numbered, or why it cannot be."""
    why = notice(found.sentence, "bad") if found.sentence else ""
    return why + _shown("template.html.j2", found=found)


def person(one: IdentityView, job: JobView | None, sheet: JobView | None, pictures: Sequence[str], now_s: float) -> str:
    """A person: how far the learning is, its curve and sample sheet, what became of each photo.

    `pictures` are data URLs of the photos by number, from 1, as far as this session has them.
    """
    version = one.versions[-1] if one.versions else None
    photos = version.photos if version else job.photos if job else []
    points = job.curve if job and job.curve else version.curve if version else []
    return _shown(
        "person.html.j2",
        one=one,
        state=_PEOPLE[one.state],
        job=job,
        sheet=sheet,
        version=version,
        photos=photos,
        used={reference.photo for reference in version.references} if version else set(),
        pictures=dict(enumerate(pictures, 1)),
        curve=Markup(curve(points)),
        left=left(job, now_s) if job else "",
    )


def left(job: JobView, now_s: float) -> str:
    """How long a running job still takes at its own pace, in words; empty when nobody knows."""
    if job.state != State.RUNNING or job.started_at is None or not 0 < job.steps_done < job.steps:
        return ""
    return span((now_s - job.started_at) / job.steps_done * (job.steps - job.steps_done))


def curve(points: Sequence[CurvePoint]) -> str:
    """The loss of a training as a drawing, smoothed and thinned; empty with fewer than two points."""
    if len(points) < 2:
        return ""
    width, height = _CURVE_PX
    stride = max(1, len(points) // _CURVE_POINTS)
    parts = [points[at : at + stride] for at in range(0, len(points), stride)]
    thin = [(part[-1].step, sum(point.loss for point in part) / len(part)) for part in parts]
    first, last = thin[0][0], thin[-1][0]
    low, high = min(loss for _, loss in thin), max(loss for _, loss in thin)
    across, down = width / max(last - first, 1), (height - 8) / max(high - low, 1e-9)
    line = " ".join(f"{(step - first) * across:.1f},{4 + (high - loss) * down:.1f}" for step, loss in thin)
    shown = {"width": width, "height": height, "line": line, "steps": points[-1].step}
    return _shown("curve.html.j2", begins=thin[0][1], ends=thin[-1][1], **shown)


@dataclass
class News:
    """What the events of a job of portraits have said so far."""

    position: int | None = None
    stage: str = ""
    done: int = 0
    total: int = 0
    preview: str = ""
    """The newest picture as a data URL."""
    accepted: int = 0
    sentences: list[str] = field(default_factory=list)
    """Why candidates were rejected, oldest first."""
    attempt: int = 0

    def take(self, name: str, data: Mapping[str, Any]) -> None:
        """One event."""
        if data.get("attempt", self.attempt) != self.attempt:
            self.attempt, self.accepted, self.sentences, self.preview = data["attempt"], 0, [], ""
        if name == "state":
            self.position = data["position"]
        elif name == "progress":
            self.stage, self.done, self.total = data["stage"], data["done"], data["total"]
        elif name == "preview":
            base64.b64decode(data["png"], validate=True)
            self.preview = f"data:image/png;base64,{data['png']}"
        elif name == "candidate" and data["accepted"]:
            self.accepted += 1
        elif name == "candidate":
            self.sentences.append(data["sentence"])


def making(news: News, wanted: int) -> str:
    """Portraits while they are made."""
    stage = _STAGES.get(news.stage, "Beginning")
    return _shown("making.html.j2", news=news, wanted=wanted, stage=stage)


def initials(styles: Sequence[StyleView]) -> str:
    """Rules by which styles of one's own, of which there is no picture, show the first letters of their titles."""
    own = [(one.name, _letters(one.title) or _letters(one.name)) for one in styles if one.own is not None]
    return _shown("initials.html.j2", styles=own) if own else ""


def _letters(title: str) -> str:
    """The first letters of at most two words."""
    return "".join(word[0] for word in re.findall(r"[^\W_]+", title)[:2]).upper()


def results(job: JobView, names: Mapping[str, str], styles: Mapping[str, str]) -> str:
    """The portraits of a job that has ended, best first, and why the others are not among them."""
    return _shown("results.html.j2", job=job, title=title(job, names, styles), whom=whom(job, names))


def edits(job: JobView, names: Mapping[str, str], before: str) -> str:
    """The edits of a job that has ended, best first, and why the others are not among them.

    `before` is a data URL of the template, as far as this session has it: each edit is then shown beside it.
    """
    return _shown("edits.html.j2", job=job, title=title(job, names, {}), whom=whom(job, names), before=before)


def is_edit(job: JobView) -> bool:
    """Whether a job draws somebody in a template."""
    return "template_sha256" in job.request


def title(job: JobView, names: Mapping[str, str], styles: Mapping[str, str]) -> str:
    """What a job was asked for, in a few words."""
    if job.kind == Kind.IDENTITY:
        return f"Learning {whom(job, names)}"
    if is_edit(job):
        return f"An edit, {whom(job, names)}"
    style = job.request.get("style")
    return f"{styles.get(style, style) if style else _IN_WORDS}, {whom(job, names)}"


def whom(job: JobView, names: Mapping[str, str]) -> str:
    """Whom a job is about."""
    return names.get(job.identity_id, "somebody") if job.identity_id else _NOBODY


def jobs(found: Sequence[JobView], names: Mapping[str, str], styles: Mapping[str, str], now_s: float) -> str:
    """Jobs, newest first, each with where it stands; those that have not ended can be cancelled."""
    if not found:
        return empty("No jobs yet", "What you order in the other tabs is listed here, with its place in the queue.")
    rows = [
        {
            "job": job,
            "title": title(job, names, styles),
            "state": _STATES[job.state],
            "left": left(job, now_s),
            "edit": is_edit(job),
        }
        for job in found
    ]
    return _shown("jobs.html.j2", rows=rows)


def kept(
    people: Sequence[IdentityView],
    orders: JobPage,
    photos: Mapping[str, int],
    styles: Sequence[StyleView],
    page: PageSettings,
) -> str:
    """What is kept of whom, and until when, of the newest `orders`. `photos` are the numbers of photos by identity.

    Of an edit without pictures there is still the picture that was to be edited, until its result would go.
    """
    names, titles = {one.id: one.name for one in people}, {one.name: one.title for one in styles}
    rows = [{"one": one, "state": _PEOPLE[one.state], "photos": photos.get(one.id)} for one in people]
    ended = [job for job in orders.data if job.expires_at is not None]
    results = [
        {"job": job, "title": title(job, names, titles), "edit": is_edit(job)}
        for job in ended
        if job.images or is_edit(job)
    ]
    return _shown(
        "kept.html.j2",
        people=rows,
        results=results,
        newest=len(orders.data) if orders.next else 0,
        own=[one for one in styles if one.own is not None],
        minutes=max(1, round(page.cache_s / 60)),
        hours=max(1, round(page.signed_in_s / 3600)),
    )


def erased(name: str, erasure: ErasureView) -> str:
    """What an erasure came to, with its receipt to keep."""
    receipt = None if erasure.receipt is None else json.dumps(erasure.receipt, indent=2)
    link = "" if receipt is None else f"data:application/json;base64,{base64.b64encode(receipt.encode()).decode()}"
    counts = (erasure.receipt or {}).get("erased", {})
    return _shown("erased.html.j2", name=name, receipt=receipt, link=link, counts=counts)


def _shown(template: str, **values: Any) -> str:
    return templates().get_template(template).render(**values)
