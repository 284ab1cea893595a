"""A program as an agent: it continues the text on its standard input by one line, with the embedded model.

    printf 'Message: Where is order AB-12345?\nOrder number:' | python agents/command.py

Loading the model takes about two seconds a call. To load it once, serve it and name the server:

    python -m gepa_atlas.llm.local --port 8088 &
    export MODEL_BASE_URL=http://127.0.0.1:8088/v1

Paired with configs/wrappers/command.yaml, which passes that variable on.
"""

from __future__ import annotations

import asyncio
import os
import sys

from gepa_atlas.errors import AtlasError
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest


def main() -> int:
    prompt = sys.stdin.buffer.read().decode("utf-8")
    server = os.environ.get("MODEL_BASE_URL")
    params = {"base_url": server, "model": "local"}
    try:
        model = build_model({"provider": "openai.chat", "params": params} if server else "local")
        completion = asyncio.run(model.complete(ChatRequest(prompt=prompt, max_tokens=24, stop=("\n",))))
    except AtlasError as error:
        print(error, file=sys.stderr)
        return 1
    print(completion.text.strip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
