"""Wrong keys: whoever sends too many is not heard for a while, so that nobody keeps the database busy with guesses.

Counted in this process, by address. Strangers and tenants may share an address, behind a proxy of ours at the latest:
a key that was good here before is always heard.
"""

import hashlib
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from studiolo.errors import BusyError

Value = TypeVar("Value")

_REMEMBERED = 10_000
"""Keys and addresses, those seen last."""
_MINUTE_S = 60.0


class Strangers:
    """Allows `per_minute` wrong keys from an address; its methods may be called by any thread."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute, self.clock = per_minute, clock
        self._lock = threading.Lock()
        self._good = _Recent[None]()
        """Hashes of keys."""
        self._left = _Recent[tuple[float, float]]()
        """By address: how many more it may send, and when that was counted."""

    def check(self, address: str, token: str) -> None:
        """Raises `BusyError` for a key that was not good here before, from an address that has sent too many."""
        with self._lock:
            left = self._allowed(address)
            if left < 1 and _digest(token) not in self._good:
                wait_s = math.ceil((1 - left) * _MINUTE_S / self.per_minute)
                raise BusyError("wrong_keys", "Too many wrong API keys came from this address.", wait_s)

    def wrong(self, address: str, token: str) -> None:
        """A key was not good."""
        with self._lock:
            self._good.pop(_digest(token), None)
            self._left.put(_network(address), (max(0.0, self._allowed(address) - 1), self.clock()))

    def good(self, token: str) -> None:
        """A key was good."""
        with self._lock:
            self._good.put(_digest(token), None)

    def _allowed(self, address: str) -> float:
        left, at = self._left.get(_network(address), (float(self.per_minute), self.clock()))
        return min(float(self.per_minute), left + (self.clock() - at) * self.per_minute / _MINUTE_S)


class _Recent(OrderedDict[str, Value], Generic[Value]):
    """Keeps what was put in last."""

    def put(self, name: str, value: Value) -> None:
        self[name] = value
        self.move_to_end(name)
        if len(self) > _REMEMBERED:
            self.popitem(last=False)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def _network(address: str) -> str:
    """What one subscriber has: an IPv4 address, or the first half of an IPv6 one."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(known, ipaddress.IPv4Address):
        return str(known)
    return str(ipaddress.IPv6Network((known, 64), strict=False))
