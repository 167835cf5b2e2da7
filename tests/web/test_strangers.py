"""Guesses at API keys: refused alike, fewer and fewer of them, and in nobody's way who has a key."""

import hmac
import secrets

import pytest

from studiolo.errors import BusyError
from studiolo.service.database import Database
from tests.service.clock import Clock
from tests.web.world import World, settings_with
from web.app import create_app
from web.strangers import Strangers


def guess() -> str:
    """A key that is none, and looks like one."""
    return f"studiolo_{secrets.token_hex(5)}_{secrets.token_urlsafe(32)}"


def heard(strangers: Strangers, address: str, token: str) -> bool:
    try:
        strangers.check(address, token)
    except BusyError:
        return False
    return True


def test_an_address_is_heard_as_often_as_it_may_and_again_after_a_while() -> None:
    clock = Clock()
    strangers = Strangers(6, lambda: clock.now)

    def tries() -> int:
        """How many guesses come through at once."""
        done = 0
        while heard(strangers, "192.0.2.1", "x") and done < 100:
            strangers.wrong("192.0.2.1", "x")
            done += 1
        return done

    assert tries() == 6
    with pytest.raises(BusyError) as refused:
        strangers.check("192.0.2.1", "x")
    assert refused.value.retry_after_s == 10
    clock.move(9)
    assert tries() == 0
    clock.move(1)
    assert tries() == 1
    clock.move(10_000)
    assert tries() == 6
    assert heard(strangers, "192.0.2.2", "x")


def test_who_has_ten_thousand_addresses_of_one_subscriber_is_one() -> None:
    strangers = Strangers(1)
    strangers.wrong("2001:db8:1:2::1", "x")
    assert not heard(strangers, "2001:db8:1:2:ffff::9", "x")
    assert heard(strangers, "2001:db8:1:3::1", "x")
    assert heard(strangers, "no address", "x")


def test_a_good_key_is_heard_from_any_address_until_it_is_good_no_more() -> None:
    strangers = Strangers(1)
    strangers.good("good")
    strangers.wrong("192.0.2.1", "bad")
    assert heard(strangers, "192.0.2.1", "good")
    strangers.wrong("192.0.2.1", "good")  # revoked
    assert not heard(strangers, "192.0.2.1", "good")


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("web.strangers._REMEMBERED", 3)
    strangers = Strangers(1)
    for number in range(10):
        strangers.wrong(f"192.0.2.{number}", "x")
        strangers.good(str(number))
    assert (len(strangers._left), len(strangers._good)) == (3, 3)


def test_guessing_ends_before_the_database_is_asked_and_tenants_do_not_notice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(world.service, settings_with(wrong_keys_per_min=5))
    world.client = type(world.client)(app)
    assert world.ask("GET", "/v1/jobs").status_code == 200
    asked, read = [0], Database.read

    def counted(*args: object) -> object:
        asked[0] += 1
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Database, "read", counted)
    answers = [world.client.get("/v1/jobs", headers={"Authorization": f"Bearer {guess()}"}) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 15
    assert asked == [5]
    assert {answer.json()["reason"] for answer in answers[5:]} == {"wrong_keys"}
    assert int(answers[-1].headers["retry-after"]) == 12
    assert world.ask("GET", "/v1/jobs").status_code == 200  # from the same address
    for malformed in ("x", "studiolo_", guess()[:-1]):
        assert world.client.get("/v1/jobs", headers={"Authorization": f"Bearer {malformed}"}).status_code == 429


def test_every_guess_is_compared_in_the_same_time_and_answered_alike(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether there is a key with this prefix is told neither by the answer nor by what is compared."""
    compared: list[tuple[int, int]] = []
    alike = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return alike(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    prefix = world.tokens["anna"].split("_")[1]
    told = [
        world.client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}", "X-Request-ID": "r"})
        for token in (guess(), f"studiolo_{prefix}_{secrets.token_urlsafe(32)}")
    ]
    assert told[0].status_code == told[1].status_code == 401
    assert told[0].content == told[1].content
    assert told[0].headers == told[1].headers
    assert compared == [(64, 64), (64, 64)]
