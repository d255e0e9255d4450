"""An ordinary MCP client: the PyPI `mcp` package as it is, one operation, one JSON document out.

    client.py --url http://127.0.0.1:10000/demo/mcp --key pck_… list
    client.py --url … --key … call query_users '{"limit": 3}'

Prints {"result": …} and exits 0, or {"error": {"type", "code", "message", "data"}} and exits 1.
A tool that reports an error of its own is a result (`isError`), as MCP has it.
"""

import argparse
import json
import logging
import os
import sys
from typing import Any

import anyio
import httpx2  # what `mcp` itself speaks HTTP with
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("PORTCULLIS_MCP_URL"))
    parser.add_argument("--key", default=os.environ.get("PORTCULLIS_KEY"))
    parser.add_argument(
        "--header",
        default="authorization",
        help="where the key goes: authorization (as a Bearer token) or the name of a header, such as x-api-key",
    )
    parser.add_argument("--mode", choices=["auto", "legacy"], default="auto")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for everything")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="the tools this key can see")
    call = verbs.add_parser("call", help="call one tool")
    call.add_argument("name")
    call.add_argument("arguments", nargs="?", type=json.loads, default={})
    parsed = parser.parse_args()
    if not parsed.url:
        parser.error("--url or PORTCULLIS_MCP_URL is needed")
    return parsed


def headers(asked: argparse.Namespace) -> dict[str, str]:
    if not asked.key:
        return {}
    bearer = asked.header.lower() == "authorization"
    return {asked.header: f"Bearer {asked.key}" if bearer else asked.key}


async def run(asked: argparse.Namespace) -> dict[str, Any]:
    with anyio.fail_after(asked.timeout):
        async with httpx2.AsyncClient(headers=headers(asked), timeout=asked.timeout) as http:
            transport = streamable_http_client(asked.url, http_client=http)
            async with Client(transport, mode=asked.mode) as client:
                if asked.verb == "list":
                    result = await client.list_tools()
                else:
                    result = await client.call_tool(asked.name, asked.arguments)
                document = result.model_dump(mode="json", by_alias=True, exclude_none=True)
                return {"protocol": client.protocol_version, "result": document}


def cause(fault: BaseException) -> BaseException:
    """The first real fault inside the groups that task groups wrap around it."""
    while inner := getattr(fault, "exceptions", None):
        fault = inner[0]
    return fault


def described(fault: BaseException) -> dict[str, Any]:
    return {
        "type": type(fault).__name__,
        "code": getattr(fault, "code", None),
        "message": str(fault),
        "data": getattr(fault, "data", None),
    }


def main() -> int:
    logging.disable(logging.CRITICAL)  # one JSON document, nothing beside it
    asked = arguments()
    try:
        document = anyio.run(run, asked)
    except Exception as fault:
        document = {"error": described(cause(fault))}
    json.dump(document, sys.stdout, ensure_ascii=False)
    print()
    return 1 if "error" in document else 0


if __name__ == "__main__":
    sys.exit(main())
