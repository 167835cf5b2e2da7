"""Which addresses are public, however they are written."""

import ipaddress

import pytest

from studiolo.errors import UnacceptableError
from studiolo.service.addresses import is_public, public_address, resolve


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public(address: str):
    assert is_public(ipaddress.ip_address(address))
    assert public_address("x.org", 443, resolver=lambda *_: [address]) == address


PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str):
    with pytest.raises(UnacceptableError, match="not public"):
        public_address("x.org", 443, resolver=lambda *_: [address])
    with pytest.raises(UnacceptableError):  # one bad one spoils all: which is taken must not be chance
        public_address("x.org", 443, resolver=lambda *_: ["8.8.8.8", address])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "::1"])
def test_the_machines_own_names_lead_home(host: str):
    with pytest.raises(UnacceptableError):
        public_address(host, 80)
    assert resolve("127.0.0.1", 80) == ["127.0.0.1"]


def test_networks_of_our_own_may_be_allowed():
    assert public_address("x", 80, ["10.1.0.0/16"], lambda *_: ["10.1.2.3"]) == "10.1.2.3"
    with pytest.raises(UnacceptableError):
        public_address("x", 80, ["10.1.0.0/16"], lambda *_: ["10.2.2.3"])


def test_no_address_is_an_error_of_the_network():
    with pytest.raises(OSError, match="no address"):
        public_address("x", 80, resolver=lambda *_: [])
