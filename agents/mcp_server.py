"""An MCP server with one tool, `answer`: it reads the order number out of a customer's message, with the embedded model.

    python agents/mcp_server.py                # speaks over stdin and stdout, as `argv` of the provider mcp starts it
    python agents/mcp_server.py --port 8804    # listens on http://127.0.0.1:8804/mcp, as `url` of the provider reaches it

Needs the extra [mcp].
"""

from __future__ import annotations

import argparse

from mcp.server.mcpserver import MCPServer

from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

MODEL = build_model("local")  # cheap: the model itself is loaded at the first question
server = MCPServer("orders", log_level="WARNING")


@server.tool()
async def answer(message: str, hint: str = "", examples: list[dict[str, str]] | None = None) -> str:
    """The order number in a customer's message."""
    turns = [Message("system", hint or "You read messages of customers and answer with the order number.")]
    for shown in examples or []:
        turns += [Message("user", shown["question"]), Message("assistant", shown["answer"])]
    completion = await MODEL.complete(ChatRequest(messages=(*turns, Message("user", message)), max_tokens=24))
    return completion.text.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, help="listen there instead of on stdin")
    port = parser.parse_args().port
    if port is None:
        server.run("stdio")
    else:
        server.run("streamable-http", host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
