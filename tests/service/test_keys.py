"""API keys: shown once, hashed at rest, known by prefix and compared whole."""

from pathlib import Path

import pytest

from studiolo.errors import SettingsError, UnauthorisedError
from studiolo.service.database import Database, migrate
from studiolo.service.keys import KeyLimits, Keys
from studiolo.service.settings import LimitSettings
from tests.service.clock import Clock


@pytest.fixture
def keys(database: Database) -> Keys:
    return Keys(database)


def refusal(keys: Keys, token: str) -> str:
    with pytest.raises(UnauthorisedError) as refused:
        keys.authenticate(token)
    assert refused.value.status == 401
    return refused.value.reason


def test_a_key_opens_the_door_of_its_tenant(keys: Keys):
    first, second = keys.create("Photo Müller", "shop", KeyLimits(open_jobs=3)), keys.create("Photo Müller")
    other = keys.create("b")
    caller = keys.authenticate(first.token)
    assert (caller.key_id, caller.limits.open_jobs) == (first.key.id, 3)
    assert caller.tenant_id == keys.authenticate(second.token).tenant_id != keys.authenticate(other.token).tenant_id
    assert first.webhook_secret == second.webhook_secret != other.webhook_secret
    assert [(key.tenant, key.name) for key in keys.all()] == [("Photo Müller", "shop"), ("Photo Müller", ""), ("b", "")]


def test_nothing_but_the_whole_key_will_do(keys: Keys):
    token = keys.create("a").token
    prefix = token.split("_")[1]
    others = ["", prefix, token[:-1], token + "x", token.upper(), f" {token}", token[:-1] + "\0", "\ud800" * 60]
    others += [token[:-1] + ("A" if token[-1] != "A" else "B"), token.replace(prefix, "0" * 10)]
    assert {refusal(keys, other) for other in others} == {"unknown_key"}
    keys.authenticate(token)


def test_a_key_ends_by_time_and_by_word(keys: Keys, clock: Clock):
    short, long = keys.create("a", days=1), keys.create("a", days=2)
    clock.move(86_399)
    keys.authenticate(short.token)
    clock.move(1)
    assert refusal(keys, short.token) == "expired_key"
    keys.authenticate(long.token)
    revoked = keys.revoke(long.key.prefix)
    assert (revoked.id, revoked.state(clock.now), revoked.revoked_at) == (long.key.id, "revoked", clock.now)
    assert refusal(keys, long.token) == "revoked_key"
    clock.move(5)
    assert keys.revoke(long.key.prefix) == revoked
    assert keys.all()[0].state(clock.now) == "expired"


def test_an_unknown_prefix_is_told_the_nearest(keys: Keys):
    with pytest.raises(SettingsError, match="there are no keys"):
        keys.revoke("0123456789")
    prefix = keys.create("a").key.prefix
    with pytest.raises(SettingsError, match=f"did you mean '{prefix}'"):
        keys.revoke(prefix[:-1])
    with pytest.raises(SettingsError, match="no key has the prefix"):
        keys.revoke("\0")


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\0"])
def test_names_that_are_none_are_refused(keys: Keys, name: str):
    with pytest.raises(SettingsError, match="printable"):
        keys.create(name)


def test_a_lost_answer_makes_one_key(keys: Keys, database: Database, monkeypatch: pytest.MonkeyPatch):
    write = database.write
    monkeypatch.setattr(database, "write", lambda work: write(work) and write(work))
    new = keys.create("c")
    assert keys.all() == [new.key]
    keys.authenticate(new.token)


def test_no_secret_lies_in_the_database(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/service.db"
    migrate(url)
    database = Database(url)
    new = Keys(database).create("a")
    database.compact()
    bytes_left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert new.key.prefix.encode() in bytes_left
    assert new.token.split("_", 2)[2].encode() not in bytes_left


def test_limits_of_a_key_go_over_the_settings():
    own = KeyLimits(burst=1, portraits_per_day=0).over(LimitSettings(open_jobs=7))
    assert own == LimitSettings(burst=1, portraits_per_day=0, open_jobs=7)
    assert set(KeyLimits.model_fields) == set(LimitSettings.model_fields)
