"""What lies too long in the page's folder goes, and nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from web.page.cache import Cache, sweep


def test_what_is_old_goes_and_what_is_new_stays(tmp_path: Path) -> None:
    old, new, outside = tmp_path / "cache/a/b/old.jpg", tmp_path / "cache/a/new.jpg", tmp_path / "outside.jpg"
    for path in (old, new, outside):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    link = tmp_path / "cache/link"
    link.symlink_to(outside)
    for path in (old, outside):
        os.utime(path, (1000, 1000))
    os.utime(link, (1000, 1000), follow_symlinks=False)
    os.utime(new, (1090, 1090))
    for folder in (old.parent, new.parent):
        os.utime(folder, (1000, 1000))
    assert sweep(tmp_path / "cache", 60, 1100) == 2
    assert (old.exists(), new.exists(), outside.exists(), link.is_symlink()) == (False, True, True, False)
    assert old.parent.exists()  # something went from it just now
    os.utime(old.parent, (1000, 1000))
    assert sweep(tmp_path / "cache", 60, 1100) == 0
    assert (old.parent.exists(), new.exists()) == (False, True)
    assert sweep(tmp_path / "nowhere", 60, 1100) == 0


def test_a_folder_goes_with_its_process_or_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    script = "import time; from web.page.cache import Cache; print(Cache().folder, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        left = Path(other.stdout.readline().strip())
        (left / "photo.jpg").touch()
        first = Cache()
        assert (left / "photo.jpg").exists()  # the other process lives
        other.send_signal(signal.SIGKILL)
        other.wait(60)
    second = Cache()
    assert not left.exists()
    assert oct(first.folder.stat().st_mode)[-3:] == "700"
    for cache in (first, second):
        assert cache.folder.is_dir()
        cache.close()
    assert [*tmp_path.iterdir()] == []
