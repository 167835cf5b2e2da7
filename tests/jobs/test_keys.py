"""Keys by the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.__main__ import app
from studiolo.errors import SettingsError, UnauthorisedError
from studiolo.service.database import Database
from studiolo.service.keys import Keys


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["keys", *words])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/new/service.db"


def test_create_prints_the_key_alone_on_its_last_line(url: str):
    made = run("create", "Photo Müller", "--database", url, "--name", "shop", "--open-jobs", "3", "--days", "1")
    assert made.exit_code == 0, made.output
    token = made.stdout.splitlines()[-1]
    caller = Keys(Database(url)).authenticate(token)
    assert caller.limits.open_jobs == 3
    run("create", "b", "--database", url)
    lines = [line.split("\t") for line in run("list", "--database", url).stdout.splitlines()]
    assert [line[:4] for line in lines] == [
        [token.split("_")[1], "Photo Müller", "shop", "active"],
        [*lines[1][:1], "b", "-", "active"],
    ]
    assert (lines[0][6], lines[1][5:]) == ("open_jobs=3", ["-", "-"])
    assert token.split("_", 2)[2] not in run("list", "--database", url).stdout


def test_revoke_ends_a_key(url: str):
    token = run("create", "a", "--database", url).stdout.splitlines()[-1]
    prefix = token.split("_")[1]
    assert run("revoke", prefix, "--database", url).stdout == f"revoked: {prefix} of a\n"
    assert "revoked" in run("list", "--database", url).stdout
    with pytest.raises(UnauthorisedError):
        Keys(Database(url)).authenticate(token)
    assert isinstance(run("revoke", "x", "--database", url).exception, SettingsError)


def test_the_settings_file_says_where_they_lie(url: str, tmp_path: Path):
    config = tmp_path / "endpoint.yaml"
    config.write_text(f"database: {url}\nreceipt_key: {tmp_path}/receipts.pem\ntrainer: {{lease_s: 5}}\n")
    token = run("create", "a", "--config", str(config)).stdout.splitlines()[-1]
    assert Keys(Database(url)).authenticate(token)
    assert run("list", "--config", str(config)).stdout == run("list", "--database", url).stdout
    assert "PUBLIC KEY" in run("receipts", "--config", str(config)).stdout
    assert (tmp_path / "receipts.pem").is_file()
    assert run("revoke", token.split("_")[1], "--config", str(config)).exit_code == 0
    config.write_text("databse: x")
    assert isinstance(run("list", "--config", str(config)).exception, SettingsError)


def test_a_database_of_another_kind_is_refused():
    assert isinstance(run("list", "--database", "mysql://host/x").exception, SettingsError)
