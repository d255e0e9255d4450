"""Agent frameworks as they are: each lists the tools, calls some, and says in one JSON document what a model would read.

    frameworks.py WHICH URL KEY CALLS

WHICH: langchain-http, langchain-sse (`langchain-mcp-adapters`, on the SDK 1.x that it pins), fastmcp-http, fastmcp-sse,
agents-http, agents-sse (`openai-agents`), both on the SDK 2.x. KEY: an API key, or `oauth:` for a login at the
authorization server that the gateway names. CALLS: JSON, [["echo", {"message": "hi"}], ...]; the call ["@pause", {}]
prints `paused` and waits for a line.
Prints {"tools": [names], "calls": [{"text", "isError"} or {"error": {"type", "message"}}]} as the last line.
"""

import asyncio
import json
import logging
import sys
from contextlib import AsyncExitStack
from typing import Any, Awaitable, Callable

from login import oauth_provider

PATIENCE = 8.0
Call = Callable[[str, dict[str, Any]], Awaitable[tuple[str, bool]]]


async def langchain(opened: AsyncExitStack, url: str, key: str, sse: bool) -> tuple[list[str], Call]:
    from langchain_mcp_adapters.client import MultiServerMCPClient
    from langchain_mcp_adapters.tools import load_mcp_tools

    connection = {"transport": "sse" if sse else "streamable_http", "url": url, **credential(url, key)}
    client = MultiServerMCPClient({"server": connection})
    # One session for all calls: it is what a refusal may end.
    session = await opened.enter_async_context(client.session("server"))
    tools = {tool.name: tool for tool in await load_mcp_tools(session)}

    async def call(name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        if name not in tools:
            result = await session.call_tool(name, arguments)
            return text_of(result.content), bool(result.isError)
        asked = {"type": "tool_call", "id": "1", "name": name, "args": arguments}
        message = await tools[name].ainvoke(asked)
        return str(message.content), message.status == "error"

    return list(tools), call


async def fastmcp(opened: AsyncExitStack, url: str, key: str, sse: bool) -> tuple[list[str], Call]:
    from fastmcp import Client
    from fastmcp.client.transports import SSETransport, StreamableHttpTransport

    transport = (SSETransport if sse else StreamableHttpTransport)(url, **credential(url, key))
    client = await opened.enter_async_context(Client(transport))
    tools = await client.list_tools()

    async def call(name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        result = await client.call_tool(name, arguments, raise_on_error=False)
        return text_of(result.content), bool(result.is_error)

    return [tool.name for tool in tools], call


async def agents(opened: AsyncExitStack, url: str, key: str, sse: bool) -> tuple[list[str], Call]:
    from agents.mcp import MCPServerSse, MCPServerStreamableHttp

    params = {"url": url, "timeout": PATIENCE, **credential(url, key)}
    server = await opened.enter_async_context((MCPServerSse if sse else MCPServerStreamableHttp)(params))
    tools = await server.list_tools()

    async def call(name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        result = await server.call_tool(name, arguments)
        return text_of(result.content), bool(getattr(result, "is_error", None) or getattr(result, "isError", False))

    return [tool.name for tool in tools], call


KINDS = {"langchain": langchain, "fastmcp": fastmcp, "agents": agents}


def credential(url: str, key: str) -> dict[str, Any]:
    return {"auth": oauth_provider(url)} if key == "oauth:" else {"headers": {"authorization": f"Bearer {key}"}}


def text_of(content: list[Any]) -> str:
    return " ".join(getattr(part, "text", "") for part in content)


async def run(which: str, url: str, key: str, calls: list[Any]) -> dict[str, Any]:
    kind, transport = which.split("-")
    outcomes: list[dict[str, Any]] = []
    names: list[str] = []
    try:
        async with AsyncExitStack() as opened:
            names, call = await KINDS[kind](opened, url, key, transport == "sse")
            for name, arguments in calls:
                if name == "@pause":
                    print("paused", flush=True)
                    await asyncio.to_thread(sys.stdin.readline)
                else:
                    outcomes.append(await outcome(call, name, arguments))
    except BaseException as fault:
        # A session that broke says so once more when it is closed.
        if len(outcomes) < sum(name != "@pause" for name, _ in calls):
            return {"error": described(fault), "tools": names, "calls": outcomes}
    return {"tools": names, "calls": outcomes}


async def outcome(call: Call, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        text, is_error = await asyncio.wait_for(call(name, arguments), PATIENCE)
    except (Exception, asyncio.CancelledError) as fault:
        return {"error": described(fault)}
    return {"text": text, "isError": is_error}


def described(fault: BaseException) -> dict[str, Any]:
    while inner := getattr(fault, "exceptions", None):
        fault = inner[0]
    return {"type": type(fault).__name__, "message": str(fault)}


def main() -> int:
    logging.disable(logging.CRITICAL)
    which, url, key, calls = sys.argv[1:]
    said = asyncio.run(run(which, url, key, json.loads(calls)))
    print(json.dumps(said), flush=True)
    return 1 if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main())
