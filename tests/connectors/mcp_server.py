"""A real MCP server: over stdin and stdout, or with a port as argument over HTTP."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server: Any = MCPServer("tests", log_level="CRITICAL")


@server.tool()
def echo(prompt: str) -> str:
    return prompt


@server.tool()
def parts(question: str, guidance: str, demos: list[dict[str, str]]) -> dict[str, Any]:
    return {"answer": {"text": f"{question}|{guidance}|{demos}"}}


@server.tool()
def fail(prompt: str) -> str:
    raise ToolError("the database is down")


@server.tool()
async def hang(prompt: str) -> str:
    await asyncio.sleep(60)
    return "late"


@server.tool()
def flood(prompt: str) -> str:
    return "x" * 3_000_000


@server.tool()
def crash(prompt: str) -> str:
    os._exit(3)


@server.tool()
def nothing(prompt: str) -> str:
    return " "


@server.tool()
def environment(prompt: str) -> str:
    return " ".join(sorted(os.environ))


@server.tool()
async def slow(prompt: str) -> str:
    await asyncio.sleep(0.5)
    return prompt


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
