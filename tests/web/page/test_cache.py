"""What lies too long in the page's folder goes, and nothing else."""

import os
from pathlib import Path

from web.page.cache import sweep


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
    assert sweep(tmp_path / "cache", 60, 1100) == 2
    assert (old.parent.exists(), new.exists(), outside.exists(), link.is_symlink()) == (False, True, True, False)
    assert sweep(tmp_path / "cache", 60, 1100) == 0
    assert sweep(tmp_path / "nowhere", 60, 1100) == 0
