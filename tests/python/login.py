"""A login in the place of a person's: registers a client, follows the authorization server's redirects, takes the code.

Works with the OAuth client of the official Python SDK, 1.x and 2.x.
"""

import http.cookiejar
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata

CALLBACK = "http://127.0.0.1:1/callback"  # never connected to: the redirect to it ends the login


class Storage:
    """Tokens and the registered client, for as long as the program runs."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


class UpToTheCallback(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if newurl.startswith(CALLBACK):
            raise urllib.error.HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def logged_in(address: str) -> dict[str, str]:
    """The parameters with which the authorization server comes back."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(cookies, UpToTheCallback())
    try:
        page = opener.open(address, timeout=20)
    except urllib.error.HTTPError as end:
        if end.url.startswith(CALLBACK):
            return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(end.url).query))
        raise RuntimeError(f"{end.url}: {end.code} {end.read()[:300]!r}") from None
    raise RuntimeError(f"no callback, but {page.url}: {page.read()[:300]!r}")


def oauth_provider(url: str) -> OAuthClientProvider:
    came_back: dict[str, str] = {}

    async def redirect(address: str) -> None:
        came_back.update(logged_in(address))

    async def callback() -> Any:
        try:
            from mcp.client.auth import AuthorizationCodeResult
        except ImportError:
            return came_back["code"], came_back.get("state")
        return AuthorizationCodeResult(code=came_back["code"], state=came_back.get("state"), iss=came_back.get("iss"))

    metadata = OAuthClientMetadata(
        client_name="portcullis-tests",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(url, metadata, Storage(), redirect_handler=redirect, callback_handler=callback)
