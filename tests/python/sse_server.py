"""A server of HTTP+SSE on the official Python SDK, 1.x or 2.x, whichever is on the path, with tools of server-everything.

    sse_server.py PORT
"""

import sys


def echo(message: str) -> str:
    return f"Echo: {message}"


def get_sum(a: int, b: int) -> str:
    return str(a + b)


def get_env() -> str:
    return "nothing"


def main() -> None:
    port = int(sys.argv[1])
    tools = {"echo": echo, "get-sum": get_sum, "get-env": get_env}
    try:
        from fastmcp import FastMCP
    except ImportError:
        from mcp.server.fastmcp import FastMCP as FastMCP1

        server = FastMCP1("v1", host="127.0.0.1", port=port)
        for name, tool in tools.items():
            server.add_tool(tool, name=name)
        server.run("sse")
        return
    modern = FastMCP("v2")
    for name, tool in tools.items():
        modern.tool(tool, name=name)
    modern.run(transport="sse", host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
