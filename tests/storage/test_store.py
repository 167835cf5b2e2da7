"""The store keeps old or new content whole, whatever is killed and however full the disk is."""

import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studiolo.errors import SettingsError, StoreError
from studiolo.storage import store as store_module
from studiolo.storage.store import Store
from tests.storage.faulty import COUNT, EVERY


@pytest.fixture(params=["disk", "objects", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3')}/out")
    return Store(tmp_path / "out" if request.param == "disk" else f"memory://{uuid.uuid4().hex}/out")


def test_bytes_json_and_tables_come_back_equal(store: Store) -> None:
    store.write_bytes("a/b/c.bin", b"\0\xff" * 1000)
    store.write_json("a/value.json", {"name": "Zoë", "numbers": [1, 2.5, None]})
    table = pa.table({"id": ["x", "y"], "embedding": pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))})
    store.write_table("table.parquet", table)
    again = pickle.loads(pickle.dumps(store))
    assert again.url == store.url
    assert again.read_bytes("a/b/c.bin") == b"\0\xff" * 1000
    assert again.read_json("a/value.json") == {"name": "Zoë", "numbers": [1, 2.5, None]}
    assert again.read_table("table.parquet").equals(table)
    assert again.list() == ["a/b/c.bin", "a/value.json", "table.parquet"]
    assert again.list("a") == ["a/b/c.bin", "a/value.json"]
    assert again.list("nothing/here") == []
    assert (again.folders("a"), again.folders("a/b"), again.folders("nothing/here")) == (["b"], [], [])


def test_writing_again_replaces_and_removing_is_idempotent(store: Store) -> None:
    store.write_bytes("x", b"long old content")
    store.write_bytes("x", b"new")
    assert store.read_bytes("x") == b"new"
    store.remove("x")
    store.remove("x")
    assert not store.exists("x")


def test_a_folder_that_others_leave_empty_takes_the_next_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")

    def come_and_go(name: int) -> None:
        for _ in range(200):
            store.write_bytes(f"a/b/{name}", b"x")
            store.remove(f"a/b/{name}")
            store.list("a")
            store.remove_temporary("a")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(come_and_go, range(4))) == [None] * 4
    assert store.list() == []


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An object store of which the test says how often it fails."""
    fsspec.register_implementation("faulty", "tests.storage.faulty.FaultyFileSystem", clobber=True)
    monkeypatch.setenv(COUNT, str(tmp_path / "writes"))
    monkeypatch.setattr(store_module, "RETRY_PAUSES_S", (0.01, 0.01, 0.01))
    return Store(f"faulty://{tmp_path}/out")


def test_an_object_store_s_fault_of_the_moment_is_tried_again(faulty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY, "2")
    for number in range(9):
        faulty.write_bytes(str(number), bytes([number]))
    assert [faulty.read_bytes(path) for path in faulty.list()] == [bytes([number]) for number in range(9)]


def test_an_object_store_that_keeps_failing_is_given_up(
    faulty: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "100")
    faulty.write_bytes("x", b"old")
    monkeypatch.setenv(EVERY, "1")
    with pytest.raises(StoreError, match=r"cannot write x: 503 Slow Down; check free space"):
        faulty.write_bytes("x", b"new")
    assert (tmp_path / "writes").stat().st_size == 1 + 4
    assert faulty.read_bytes("x") == b"old"


def test_a_file_that_is_not_there_is_not_asked_for_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RETRY_PAUSES_S", (60.0,))
    with pytest.raises(StoreError, match="it is not there"):
        store.read_bytes("gone")
    store.remove("gone")


def test_the_same_value_and_table_give_the_same_bytes(store: Store) -> None:
    table = pa.table({"a": list(range(1000))})
    for name in ("one", "two"):
        store.write_json(f"{name}.json", {"b": 1, "a": [0.1, "é"]})
        store.write_table(f"{name}.parquet", table)
    assert store.read_bytes("one.json") == store.read_bytes("two.json")
    assert store.read_bytes("one.parquet") == store.read_bytes("two.parquet")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b", "a\\b"])
def test_paths_out_of_the_store_are_refused(store: Store, path: str) -> None:
    for use in (store.read_bytes, store.exists, store.remove, lambda p: store.write_bytes(p, b"")):
        with pytest.raises(StoreError, match="wanted one like"):
            use(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.sampled_from("ab./ \\é~#?%*"), min_size=1, max_size=12), content=st.binary(max_size=20))
def test_any_path_is_refused_or_stays_below_the_root(tmp_path: Path, path: str, content: bytes) -> None:
    root = tmp_path / uuid.uuid4().hex / "deep" / "out"
    store = Store(root)
    try:
        store.write_bytes(path, content)
    except StoreError:
        assert not root.exists()
        return
    assert store.read_bytes(path) == content
    assert store.list() == [path]
    written = [file for file in root.parent.parent.rglob("*") if file.is_file()]
    assert all(file.is_relative_to(root) for file in written)


def test_errors_say_what_is_wrong_and_what_to_do(store: Store) -> None:
    with pytest.raises(StoreError, match=r"cannot read gone\.bin: it is not there; check the path"):
        store.read_bytes("gone.bin")
    store.write_bytes("bad.json", b'{"half": ')
    with pytest.raises(StoreError, match=r"bad\.json: got damaged content .* wanted JSON; delete"):
        store.read_json("bad.json")
    store.write_bytes("bad.parquet", b"PAR1 and then nothing")
    with pytest.raises(StoreError, match=r"bad\.parquet: .* wanted a Parquet file"):
        store.read_table("bad.parquet")


def test_an_unknown_kind_of_url_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 's3'"):
        Store("s33://bucket/folder")


def test_a_relative_url_means_the_same_place_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("out")
    store.write_bytes("x", b"1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(pickle.dumps(store)).read_bytes("x") == b"1"


def test_local_files_for_libraries_that_need_one(store: Store) -> None:
    store.write_bytes("model/x.bin", b"weights")
    with store.as_local_file("model/x.bin") as path:
        assert (path.name, path.read_bytes()) == ("x.bin", b"weights")
    assert path.exists() is (store.local_path("model/x.bin") is not None)
    with pytest.raises(StoreError, match="not there"), store.as_local_file("model/y.bin"):
        pass


def test_a_local_file_is_stored_whole_and_stays(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "large.bin"
    source.write_bytes(bytes(range(256)) * 4096)
    store.write_bytes("data/large.bin", b"old")
    store.write_file("data/large.bin", source)
    assert store.read_bytes("data/large.bin") == source.read_bytes()
    assert store.list() == ["data/large.bin"]
    with pytest.raises(StoreError, match=r"cannot write data/large\.bin"):
        store.write_file("data/large.bin", tmp_path / "missing.bin")
    assert store.read_bytes("data/large.bin") == source.read_bytes()


@pytest.mark.parametrize("url", ["{}", "memory://rows-of-tables"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_rows_written_one_by_one_are_the_table(tmp_path: Path, url: str, count: int) -> None:
    store = Store(url.format(tmp_path))
    schema = pa.schema([("name", pa.string()), ("values", pa.list_(pa.float32()))])
    rows = [{"name": f"row {number}", "values": [number / 2] * (number % 3)} for number in range(count)]
    store.write_rows("tables/rows.parquet", iter(rows), schema)
    assert list(store.iter_rows("tables/rows.parquet")) == rows
    assert store.read_table("tables/rows.parquet") == pa.Table.from_pylist(rows, schema)
    first = store.read_bytes("tables/rows.parquet")
    store.write_rows("tables/rows.parquet", rows, schema)
    assert store.read_bytes("tables/rows.parquet") == first


@pytest.mark.parametrize("url", ["{}", "memory://rows-that-stay"])
def test_rows_that_stay_are_the_table_written_of_them(tmp_path: Path, url: str) -> None:
    store = Store(url.format(tmp_path))
    schema = pa.schema([("name", pa.string()), ("number", pa.int32())])
    rows = [{"name": f"row {number}", "number": number} for number in range(300)]
    store.write_rows("rows.parquet", rows, schema)
    store.keep_rows("rows.parquet", lambda row: row["number"] % 3 > 0)
    assert list(store.iter_rows("rows.parquet", ["number"])) == [{"number": n} for n in range(300) if n % 3]
    store.write_rows("again.parquet", [row for row in rows if row["number"] % 3], schema)
    assert store.read_bytes("rows.parquet") == store.read_bytes("again.parquet")
    store.keep_rows("rows.parquet", lambda row: False)
    assert store.read_table("rows.parquet") == schema.empty_table()


def test_rows_of_what_is_no_table_are_an_error_with_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("rows.parquet", b"these are words")
    with pytest.raises(StoreError, match=r"rows.parquet: got .*, wanted a Parquet file"):
        list(store.iter_rows("rows.parquet"))


_WRITER = """
import sys
from studiolo.storage.store import Store
store, size = Store(sys.argv[1]), int(sys.argv[2])
store.write_bytes("file", bytes([255]) * size)
print("ready", flush=True)
for number in range(10**9):
    store.write_bytes("file", bytes([number % 251]) * size)
    store.write_json(f"records/{number % 7}.json", {"number": number, "filler": "x" * 5000})
"""


def test_killed_writers_leave_no_torn_file(tmp_path: Path) -> None:
    store, size, rng = Store(tmp_path / "out"), 2_000_000, random.Random(7)
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, store.url, str(size)], stdout=subprocess.PIPE, env=_environment()
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.06))
        writer.send_signal(signal.SIGKILL)
        writer.wait(30)
        writer.stdout.close()
        content = store.read_bytes("file")
        assert len(content) == size
        assert len(set(content)) == 1
        for path in store.list("records"):
            assert len(store.read_json(path)["filler"]) == 5000
    assert all(path == "file" or path.startswith("records/") for path in store.list())


def test_what_killed_writers_leave_is_swept_by_the_next_driver(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_bytes("a/kept", b"1")
    old, young = tmp_path / "a" / ".0123.tmp", tmp_path / "a" / ".4567.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    assert store.list() == ["a/kept"]
    with store.lock("test"):
        assert (old.exists(), young.exists()) == (False, True)  # the young one may belong to a live writer


_FULL = """
import resource, sys
from studiolo.errors import StoreError
from studiolo.storage.store import Store
store = Store(sys.argv[1])
store.write_bytes("file", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.write_bytes("file", b"new" * 1_000_000)
except StoreError as error:
    print(error)
store.write_bytes("small", b"fits")
"""


def test_a_write_that_does_not_fit_keeps_the_old_content(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        env=_environment(),
        check=True,
    )
    assert "cannot write file: File too large; check free space" in result.stdout
    assert Store(tmp_path).list() == ["file", "small"]
    assert Store(tmp_path).read_bytes("file") == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "small"}
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000  # the limit was the child's only


def test_a_full_disk_keeps_the_old_content(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        store = Store(disk / "out")
        store.write_bytes("file", b"old" * 1000)
        with pytest.raises(StoreError, match="No space left on device; check free space"):
            store.write_bytes("file", b"new" * 1_000_000)
        assert store.read_bytes("file") == b"old" * 1000
        assert [path.name for path in (disk / "out").iterdir()] == ["file"]
        store.write_bytes("file", b"new")
        assert store.read_bytes("file") == b"new"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": str(root)}
