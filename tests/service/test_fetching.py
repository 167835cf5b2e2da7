"""Photos by URL, against a real server on this machine and a resolver that the test decides on."""

import asyncio
import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studiolo.errors import SettingsError, TooLargeError, UnacceptableError
from studiolo.service.fetching import PhotoFetcher
from studiolo.service.settings import PhotoUrlSettings, ServiceSettings
from tests.service.photo_server import DRIP, FLOOD, Given, PhotoServer
from tests.service.test_webhooks import certificate

pytestmark = pytest.mark.timeout(60)
HOST = "photos.example"
LOOPBACK = ("127.0.0.0/8",)


class House:
    """A server, and fetchers that may ask it."""

    def __init__(self, server: PhotoServer, ca_file: Path) -> None:
        self.server, self.ca_file = server, ca_file
        self.names: list[str] = []
        """What the resolver was asked."""
        self.addresses = {HOST: ["127.0.0.1"]}

    def resolve(self, host: str, port: int) -> list[str]:
        self.names.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]

    def fetcher(self, **change: object) -> PhotoFetcher:
        own = {
            "hosts": (f"{HOST}:{self.server.port}",),
            "networks": LOOPBACK,
            "ca_file": str(self.ca_file),
            "timeout_s": 5.0,
        }
        return PhotoFetcher(PhotoUrlSettings.model_validate(own | change), self.resolve)

    def url(self, path: str, host: str = HOST) -> str:
        return f"https://{host}:{self.server.port}{path}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PhotoServer, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    with PhotoServer.started(certificate(folder, HOST)) as server:
        yield server, folder / "cert.pem"


@pytest.fixture
def house(server: tuple[PhotoServer, Path]) -> House:
    house = House(*server)
    house.server.paths.clear()
    house.server.asked.clear()
    return house


def fetched(fetcher: PhotoFetcher, url: str) -> bytes:
    parts: list[bytes] = []
    asyncio.run(fetcher.fetch(url, parts.append))
    return b"".join(parts)


def refusal(fetcher: PhotoFetcher, url: str) -> str:
    with pytest.raises(UnacceptableError) as refused:
        fetched(fetcher, url)
    assert refused.value.status == 422
    return refused.value.sentence


def test_a_photo_comes_as_it_is(house: House) -> None:
    house.server.paths["/a.jpg?size=1"] = Given(body=b"\xff\xd8\xff" * 100_000)
    assert fetched(house.fetcher(), house.url("/a.jpg?size=1")) == b"\xff\xd8\xff" * 100_000
    assert house.server.asked == [(f"{HOST}:{house.server.port}", "/a.jpg?size=1")]
    assert house.server.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie", "referer"} & house.server.headers.keys()


def test_it_is_off_unless_hosts_are_listed(house: House) -> None:
    assert refusal(PhotoFetcher(resolver=house.resolve), house.url("/a.jpg")).startswith("Photos are not fetched here")
    assert house.names == []


@pytest.mark.parametrize(
    "url",
    [
        "http://photos.example/a.jpg",
        "https://other.example/a.jpg",
        "https://photos.example:444/a.jpg",
        "https://photos.example./a.jpg",
        "https://photos.example.evil.org/a.jpg",
        "https://evil.org/https://photos.example/a.jpg",
        "https://photos.example@evil.org/a.jpg",
        "https://me:secret@photos.example/a.jpg",
        "https://photos.example\\@evil.org/a.jpg",
        "https://photos.example\n.evil.org/",
        "https://photоs.example/a.jpg",
        "https://127.0.0.1/a.jpg",
        "https://[::1]/a.jpg",
        "https:///a.jpg",
        "https://",
        "file:///etc/passwd",
        "gopher://photos.example/",
        "//photos.example/a.jpg",
        "data:image/png;base64,AA",
        "x" * 3000,
        "",
        "\0",
    ],
)
def test_urls_that_are_not_on_the_list_are_not_even_resolved(house: House, url: str) -> None:
    fetcher = house.fetcher(hosts=(HOST,))
    assert fetcher.check("https://photos.example/a.jpg").host == HOST
    assert fetcher.check("https://PHOTOS.example:443/a.jpg").host == HOST
    refusal(fetcher, url)
    assert house.names == []


PRIVATE = [
    "127.0.0.1",
    "10.0.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "224.0.0.1",
    "0.0.0.0",
    "::1",
    "fe80::1",
    "fd00::1",
]
PRIVATE += ["ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "100.64.0.1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_listed_name_may_not_lead_to_an_address_that_is_not_public(house: House, address: str) -> None:
    for found in ([address], ["93.184.216.34", address]):
        house.addresses[HOST] = found
        assert "not public" in refusal(house.fetcher(networks=()), house.url("/a.jpg"))
    assert house.server.asked == []


def test_a_name_is_resolved_once_and_that_address_is_called(house: House) -> None:
    house.server.paths["/a.jpg"] = Given(body=b"x")

    def changing(host: str, port: int) -> list[str]:
        house.names.append(host)
        return ["127.0.0.2"] if len(house.names) == 1 else ["127.0.0.1"]

    fetcher = house.fetcher()
    fetcher.resolver = changing
    assert "could not be asked" in refusal(fetcher, house.url("/a.jpg"))  # nobody listens there
    assert (house.names, house.server.asked) == ([HOST], [])


def test_certificates_are_checked_by_name(house: House) -> None:
    house.addresses["other.example"] = ["127.0.0.1"]
    fetcher = house.fetcher(hosts=(f"other.example:{house.server.port}",))
    assert "could not be asked" in refusal(fetcher, house.url("/a.jpg", "other.example"))
    assert "could not be asked" in refusal(house.fetcher(ca_file=None), house.url("/a.jpg"))
    assert house.server.asked == []


def test_redirects_on_the_list_are_followed_each_resolved_anew(house: House) -> None:
    house.server.paths |= {
        "/1": Given(302, headers={"Location": "/2"}),
        "/2": Given(307, headers={"Location": house.url("/3")}),
        "/3": Given(body=b"photo"),
    }
    assert fetched(house.fetcher(), house.url("/1")) == b"photo"
    assert house.names == [HOST] * 3
    assert "redirected more than 1 times" in refusal(house.fetcher(redirects=1), house.url("/1"))
    house.server.paths["/1"] = Given(301, headers={"Location": "/1"})
    assert "redirected more than 3 times" in refusal(house.fetcher(), house.url("/1"))


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/",
        "http://photos.example/",
        "https://169.254.169.254/latest/meta-data/",
        "//127.0.0.1/",
        "https://localhost/",
        "file:///etc/passwd",
        "https://me@photos.example/",
        "https://[",
        "https://photos.example:22/",
    ],
)
def test_a_redirect_off_the_list_is_not_followed(house: House, location: str) -> None:
    house.server.paths["/a.jpg"] = Given(302, headers={"Location": location})
    refusal(house.fetcher(), house.url("/a.jpg"))
    assert (house.names, len(house.server.asked)) == ([HOST], 1)


def test_a_redirect_to_a_listed_name_that_is_private_is_not_followed(house: House) -> None:
    """The first address was fine; the second hop's is looked at as well."""
    inner = f"inner.example:{house.server.port}"
    house.addresses["inner.example"] = ["10.0.0.5"]
    house.server.paths["/a.jpg"] = Given(302, headers={"Location": f"https://{inner}/secret"})
    fetcher = house.fetcher(hosts=(f"{HOST}:{house.server.port}", inner))
    assert "not public" in refusal(fetcher, house.url("/a.jpg"))
    assert house.names == [HOST, "inner.example"]


def test_what_drips_is_left_in_time_and_what_floods_at_the_first_byte_too_many(house: House) -> None:
    house.server.paths |= {"/drip": Given(body=DRIP), "/flood": Given(body=FLOOD)}
    began_s = time.monotonic()
    assert "did not come in 0.5 s" in refusal(house.fetcher(timeout_s=0.5), house.url("/drip"))
    assert time.monotonic() - began_s < 5
    came = 0

    def take(chunk: bytes) -> None:
        nonlocal came
        came += len(chunk)
        if came > 2**20:
            raise TooLargeError("photo_too_large", "x")

    with pytest.raises(TooLargeError):
        asyncio.run(house.fetcher().fetch(house.url("/flood"), take))
    assert came < 2**20 + 2**17
    assert house.server.sent < 2**26  # it was hung up on


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Given(404), "HTTP 404"),
        (Given(500), "HTTP 500"),
        (Given(206, b"x"), "HTTP 206"),
        (Given(302), "HTTP 302"),
        (Given(200, gzip.compress(bytes(2**20)), {"Content-Encoding": "gzip"}), "came packed"),
    ],
)
def test_other_answers_are_no_photo(house: House, given: Given, says: str) -> None:
    house.server.paths["/a.jpg"] = given
    sentence = refusal(house.fetcher(), house.url("/a.jpg"))
    assert says in sentence
    assert "example" not in sentence  # a URL may be a secret


def test_a_name_that_nobody_knows_is_told(house: House) -> None:
    del house.addresses[HOST]
    assert "could not be asked" in refusal(house.fetcher(), house.url("/a.jpg"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": ["https://x.org"]},
        {"hosts": ["x.org/a"]},
        {"hosts": ["*.x.org"]},
        {"hosts": ["X.org"]},
        {"networks": ["10.0.0.1/8"]},
    ],
)
def test_settings_that_would_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="photo_urls"):
        ServiceSettings.load(None, {"photo_urls": wrong})
