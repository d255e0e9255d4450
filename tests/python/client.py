"""The official Python client as it is: lists the tools, calls some, says what came of it in one JSON document.

    client.py WHICH URL KEY CALLS

WHICH: auto, legacy (streamable HTTP), sse (HTTP+SSE of 2024-11-05). CALLS: JSON, [["echo", {"message": "hi"}], ...].
Prints {"protocol", "tools": [names], "calls": [{"result"} or {"error": {"type", "code", "message"}}]}.
"""

import json
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx2  # what `mcp` itself speaks HTTP with
from mcp.client.client import Client
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

PATIENCE = 20.0


async def run(which: str, url: str, key: str, calls: list[Any]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key}"}
    async with AsyncExitStack() as opened:
        if which == "sse":
            streams = await opened.enter_async_context(sse_client(url, headers=headers))
            client = await opened.enter_async_context(ClientSession(*streams))
            protocol = (await client.initialize()).protocol_version
        else:
            http = await opened.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=PATIENCE))
            transport = streamable_http_client(url, http_client=http)
            client = await opened.enter_async_context(Client(transport, mode=which))
            protocol = client.protocol_version
        listed = await client.list_tools()
        return {
            "protocol": protocol,
            "tools": [tool.name for tool in listed.tools],
            "calls": [await outcome(client, name, arguments) for name, arguments in calls],
        }


async def outcome(client: Client | ClientSession, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        # Not for ever: after a POST with a bad status the SSE transport of this SDK never answers.
        with anyio.fail_after(5.0):
            result = await client.call_tool(name, arguments)
    except Exception as fault:
        return {"error": described(fault)}
    return {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True)}


def described(fault: BaseException) -> dict[str, Any]:
    while inner := getattr(fault, "exceptions", None):
        fault = inner[0]
    return {"type": type(fault).__name__, "code": getattr(fault, "code", None), "message": str(fault)}


def main() -> int:
    logging.disable(logging.CRITICAL)
    which, url, key, calls = sys.argv[1:]
    try:
        said = anyio.run(run, which, url, key, json.loads(calls))
    except Exception as fault:
        said = {"error": described(fault)}
    print(json.dumps(said))
    return 1 if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
