"""What is left of a customer when the last day has passed: nothing, however often the erasing was killed."""

import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from jobs.__main__ import app
from studiolo.albums.records import PERCEIVED_SCHEMA
from studiolo.errors import SettingsError, StudioloError
from studiolo.identities.artifacts import (
    checkpoint_path,
    crop_path,
    identity_folder,
    identity_name,
    lora_path,
    safe_segment,
)
from studiolo.portraits.approvals import APPROVALS
from studiolo.portraits.delivery import NOTE
from studiolo.portraits.thumbs import photo_origin, thumb_path
from studiolo.storage import retention
from studiolo.storage.attempts import Attempts
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from tests.jobs.finished_job import SHARED, finished_job
from tests.portraits.job_rows import ODD_NAME, picture, png

TODAY = datetime.date.today()
PAST, COMING = TODAY - datetime.timedelta(1), TODAY + datetime.timedelta(1)
BERTA = "Berta Müller"
SECOND = f"{BERTA}/other-1"
DATES = {"anna": COMING, BERTA: PAST, "nobody": TODAY}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, words)))


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def traces(folder: Path, name: str) -> list[str]:
    """Files whose path or bytes still speak of `name`."""
    signs = [name.encode(), json.dumps(name).encode()[1:-1], name.replace("&", "&amp;").encode()]
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in found if any(sign in path.read_bytes() for sign in signs) or name in path.name]


@pytest.fixture
def delivered(tmp_path: Path) -> Store:
    """A finished job of three customers, of whom one has two people made, delivered as folders and as zips."""
    store = finished_job(tmp_path, (*DATES, SECOND), DATES, TODAY, failed="nobody")
    signer = ("--development", tmp_path / "provenance")
    assert run("deliver", store.url, "--to", tmp_path / "folders", *signer).exit_code == 3
    assert run("deliver", store.url, "--to", tmp_path / "zips", "--zip", *signer).exit_code == 3
    (tmp_path / "folders" / "keep.txt").write_text("of the studio")
    return store


def test_what_is_due_goes_everywhere_and_the_rest_stays(delivered: Store, tmp_path: Path):
    albums = contents(tmp_path / "albums")
    before = contents(tmp_path / "out") | {f"folders/{k}": v for k, v in contents(tmp_path / "folders").items()}
    assert traces(tmp_path / "out", BERTA)
    assert run("retain", delivered.url).exit_code == 0
    assert contents(tmp_path / "albums") == albums
    assert traces(tmp_path / "out", BERTA) == []
    assert traces(tmp_path / "folders", BERTA) == traces(tmp_path / "zips", BERTA) == []
    assert [line["album_sha256"] for line in lines(delivered)] == [hashlib.sha256(BERTA.encode()).hexdigest()]
    assert lines(delivered)[0]["counts"] == {"files": 79, "records": 8, "runs": 2, "delivered": 19}
    assert not delivered.exists(retention.ERASING)
    assert delivered.read_json("summary.json")["identities"] == 2
    after = contents(tmp_path / "out") | {f"folders/{k}": v for k, v in contents(tmp_path / "folders").items()}
    of_anna = [path for path in before if "anna" in path or "keep.txt" in path]
    assert len(of_anna) > 20
    assert {path: before[path] for path in of_anna} == {path: after[path] for path in of_anna}
    thumbs = [path for path in after if path.startswith("gallery/thumbs/")]
    assert {path: before[path] for path in thumbs} == {path: after[path] for path in thumbs}
    page = (tmp_path / "out" / "gallery" / "index.html").read_text()
    assert all(thumb.removeprefix("gallery/") in page for thumb in thumbs)


def test_no_run_and_no_file_of_it_is_left_in_mlflow(delivered: Store, tmp_path: Path):
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    run("retain", delivered.url)
    client = MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    experiments = [item.experiment_id for item in client.search_experiments()]
    names = [item.info.run_name for item in client.search_runs(experiments, run_view_type=ViewType.ALL)]
    assert sorted(names) == ["anna", "nobody", "studio"]
    assert len(list((tmp_path / "out" / "mlartifacts").rglob("references.png"))) == 2


def test_what_an_earlier_night_made_of_more_people_goes_too(delivered: Store, tmp_path: Path):
    third = f"{BERTA}/other-2"
    left = [crop_path(third, "0" * 64), lora_path(third), checkpoint_path(third)]
    for path in left:
        delivered.write_bytes(path, b"x")
    Ledger(delivered).complete("identity", "f" * 64, {"identity_id": third}, [lora_path(third)])
    delivered.write_bytes(
        APPROVALS, delivered.read_bytes(APPROVALS) + f"{'9' * 64},approve,,{third},x,1,x,x\n".encode()
    )
    assert run("retain", delivered.url).exit_code == 0
    assert [path for path in left if delivered.exists(path)] == []
    assert traces(tmp_path / "out", BERTA) == []


def test_tables_of_two_nights_do_not_stop_the_erasing(delivered: Store, tmp_path: Path):
    """A job that was killed had written its albums, with more people than the identities of the night before."""
    rows = delivered.read_table("albums.parquet").to_pylist()
    more = {**rows[-1], "identity_id": identity_name("anna", 1), "album_id": "anna", "photos": []}
    delivered.write_table("albums.parquet", pa.Table.from_pylist([*rows, more], PERCEIVED_SCHEMA))
    assert run("retain", delivered.url).exit_code == 0
    assert delivered.read_json("summary.json")["identities"] == 2


def test_again_does_nothing_and_says_so(delivered: Store, tmp_path: Path):
    run("retain", delivered.url)
    before = contents(tmp_path)
    again = run("retain", delivered.url)
    named = run("retain", delivered.url, "--albums", BERTA)
    assert (again.exit_code, named.exit_code) == (0, 0)
    assert "0 albums erased" in again.output
    assert contents(tmp_path) == before


def test_a_dry_run_changes_nothing(delivered: Store, tmp_path: Path):
    before = contents(tmp_path)
    result = run("retain", delivered.url, "--dry-run", "--albums", f"{BERTA}, nobody")
    assert f"would erase: {BERTA} (79 files, 8 records, 2 runs, 19 delivered)" in result.output
    assert "would erase: nobody" in result.output
    assert contents(tmp_path) == before


def test_marks_that_killed_jobs_left_go_for_they_may_name_photos(delivered: Store, tmp_path: Path):
    photo = f"{tmp_path}/albums/{BERTA}/selfie.jpg"
    for run_of_job in ("one", "one", "other"):
        attempt = Attempts(delivered, "perception", run_of_job).begin("album key")
        attempt.work_on(photo)
        attempt.explain(f"{photo} took longer than 5 s")
    assert len(traces(tmp_path / "out" / "attempts" / "perception", BERTA)) == 1
    assert run("retain", delivered.url, "--dry-run").exit_code == 0
    assert traces(tmp_path / "out" / "attempts", BERTA)
    assert run("retain", delivered.url).exit_code == 0
    assert traces(tmp_path / "out", BERTA) == []
    assert Attempts(delivered, "perception", "next").begin("album key").crashes == []


def test_only_what_was_delivered_goes_from_a_delivery_folder(delivered: Store, tmp_path: Path):
    folder = tmp_path / "folders" / safe_segment(BERTA)
    edited, own = folder / "portraits" / "studio-01.png", folder / "portraits" / "IMG_1.png"
    edited.write_bytes(b"retouched by the studio")
    own.write_bytes(b"of the customer")
    assert run("retain", delivered.url).exit_code == 0
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["IMG_1.png"]


def test_an_older_delivery_without_notes_goes_too(delivered: Store, tmp_path: Path):
    delivered.remove(f"{identity_folder(BERTA)}/{NOTE}")
    own = tmp_path / "folders" / safe_segment(BERTA) / "portraits" / "IMG_1.png"
    own.write_bytes(png(picture(1)))
    assert run("retain", delivered.url).exit_code == 0
    assert traces(tmp_path / "folders", BERTA) == traces(tmp_path / "zips", BERTA) == []
    assert [path for path in own.parents[1].rglob("*") if path.is_file()] == [own]
    assert not (tmp_path / "zips" / f"{safe_segment(BERTA)}.zip").exists()
    assert lines(delivered)[0]["counts"]["delivered"] == 19


class Killed(Exception):
    """The process ends between two calls of the store."""


def test_killed_at_any_moment_and_run_again_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The store is cut off after 1, 4, 16 ... changes; the next run starts from what lies there."""
    store = finished_job(tmp_path, ("anna", BERTA), {"anna": COMING, BERTA: PAST}, TODAY)
    run("deliver", store.url, "--to", tmp_path / "folders", "--zip", "--development", tmp_path / "provenance")
    albums, budget = contents(tmp_path / "albums"), [0]

    def cut_off(whole: Callable[..., None]) -> Callable[..., None]:
        def cut(self: Store, *arguments: object) -> None:
            if arguments[0] != ".lock.json":
                budget[0] -= 1
                if budget[0] < 0:
                    raise Killed
            whole(self, *arguments)

        return cut

    for name in ("remove", "write_bytes"):
        monkeypatch.setattr(Store, name, cut_off(getattr(Store, name)))
    kills = 0
    for changes in (1, 4, 16, 20, 30, 36, 3, 2, 1, 60, 1000):
        budget[0] = changes
        result = run("retain", store.url)
        kills += isinstance(result.exception, Killed)
    assert kills > 3
    assert result.exit_code == 0
    assert traces(tmp_path / "out", BERTA) == traces(tmp_path / "folders", BERTA) == []
    assert [line["counts"]["files"] for line in lines(store)] == [40]
    assert store.read_json("summary.json")["identities"] == 1
    assert contents(tmp_path / "albums") == albums


def test_named_albums_go_before_their_day_and_odd_names_too(tmp_path: Path):
    store = finished_job(tmp_path, ("anna", ODD_NAME.replace("/", "-")), {"anna": None}, TODAY)
    odd = ODD_NAME.replace("/", "-")
    retention.remember(store, {odd: None}, None, TODAY)
    with pytest.raises(SettingsError, match="did you mean 'anna'"):
        raise run("retain", store.url, "--albums", "ana").exception  # type: ignore[misc]
    assert run("retain", store.url).output.startswith("0 albums")
    retention_run = run("retain", store.url, "--albums", "anna")
    assert retention_run.exit_code == 0
    assert traces(tmp_path / "out", "anna") == []
    assert store.read_json("summary.json")["identities"] == 1


def test_a_delivery_folder_that_is_away_is_named(delivered: Store, tmp_path: Path):
    (tmp_path / "folders").rename(tmp_path / "unplugged")
    assert f"the delivery folder {tmp_path}/folders is not there" in run("retain", delivered.url).output


def test_an_output_that_is_none_is_refused(tmp_path: Path):
    assert isinstance(run("retain", tmp_path).exception, SettingsError)
    assert not list(tmp_path.iterdir())


def test_it_waits_for_no_other_job(delivered: Store):
    with delivered.lock("studio"):
        assert isinstance(run("retain", delivered.url).exception, StudioloError)


def lines(store: Store) -> list[dict]:
    return [json.loads(line) for line in store.read_bytes(retention.ERASED).decode().splitlines()]


def test_a_photo_in_two_albums_stays_with_the_other(tmp_path: Path):
    store = finished_job(tmp_path, ("anna", BERTA), {"anna": COMING, BERTA: PAST}, TODAY, manifest=True)
    thumbs = {album: thumb_path(photo_origin(album, SHARED)) for album in ("anna", BERTA)}
    page = store.read_bytes("gallery/people/anna.html")
    assert run("retain", store.url).exit_code == 0
    assert {album: store.exists(path) for album, path in thumbs.items()} == {"anna": True, BERTA: False}
    assert store.read_bytes("gallery/people/anna.html") == page
