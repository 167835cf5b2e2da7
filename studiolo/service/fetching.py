"""Photos that a caller names by URL, fetched for it: from hosts on a list alone, and from public addresses alone.

Each hop of a redirect is a URL like the first: its host has to be on the list, its name is resolved once, its addresses
are looked at, and the connection goes to the one that was. Nothing that comes is unpacked.
"""

import asyncio
from collections.abc import Callable

import httpx

from studiolo.errors import RefusedError, UnacceptableError
from studiolo.service.addresses import Resolve, careful_client, pinned_request, resolve
from studiolo.service.settings import PhotoUrlSettings

_HTTPS = 443
_CHUNK = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = {"accept": "image/*", "accept-encoding": "identity"}


class PhotoFetcher:
    """Fetches photos from the hosts of its settings."""

    def __init__(self, settings: PhotoUrlSettings | None = None, resolver: Resolve = resolve) -> None:
        self.settings = settings or PhotoUrlSettings()
        self.resolver = resolver

    def check(self, url: str) -> httpx.URL:
        """A URL that may be fetched. Raises `UnacceptableError` for any other, before anything is resolved."""
        if not self.settings.hosts:
            raise UnacceptableError("photo_urls", "Photos are not fetched here; send their files.")
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise UnacceptableError("photo_url", "A photo's URL is none.") from None
        if parsed.scheme != "https" or not parsed.host or parsed.userinfo:
            raise UnacceptableError("photo_url", "A photo's URL has to be like https://HOST/PATH, without a password.")
        place = f"{parsed.raw_host.decode()}:{parsed.port or _HTTPS}"
        if place not in self.settings.places:
            raise UnacceptableError("photo_url", "A photo's host is not among those that are asked.")
        return parsed

    async def fetch(self, url: str, take: Callable[[bytes], None]) -> None:
        """Give `take` the file's bytes as they come, which may raise to end it.

        Raises `UnacceptableError` for a URL, or a redirect, that may not be fetched, and when the file could not be had
        within `timeout_s`.
        """
        try:
            async with asyncio.timeout(self.settings.timeout_s), careful_client(self.settings.ca_file) as client:
                for _ in range(self.settings.redirects + 1):
                    next_url = await self._hop(client, self.check(url), take)
                    if next_url is None:
                        return
                    url = next_url
        except RefusedError:
            raise
        except TimeoutError:
            raise _failed(f"it did not come in {self.settings.timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise _failed(f"its server could not be asked ({type(error).__name__})") from None
        raise _failed(f"it was redirected more than {self.settings.redirects} times")

    async def _hop(self, client: httpx.AsyncClient, url: httpx.URL, take: Callable[[bytes], None]) -> str | None:
        """One request: None when the file came, else where it leads."""
        request = await pinned_request(client, "GET", url, _HEADERS, self.settings.networks, self.resolver)
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return str(url.join(response.headers["location"]))
            if response.status_code != 200:
                raise _failed(f"its server answered with HTTP {response.status_code}")
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise _failed("it came packed")
            async for chunk in response.aiter_raw(_CHUNK):
                take(chunk)
        finally:
            await response.aclose()
        return None


def _failed(why: str) -> UnacceptableError:
    return UnacceptableError("photo_url", f"A photo could not be fetched: {why}.")
