"""A third-party MCP server: the PyPI `mcp` package as it is, three tiny tools, no credential.

Owns nothing of Portcullis; it shows that the gateway guards servers that were never written for it.
Run it with `mcp` on the path:  python server.py --port 9002
"""

import argparse
import os

from mcp.server.mcpserver import MCPServer

server = MCPServer("portcullis-demo-python")


@server.tool()
def echo(message: str) -> str:
    """Say it again."""
    return message


@server.tool()
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


@server.tool()
def secrets() -> dict[str, str]:
    """Show the server's environment. The kind of tool that a policy hides."""
    return dict(os.environ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    server.run(transport="streamable-http", host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
