"""A small HTTP service as an agent: it writes measurements with unit symbols ("12 kilometres" as "12 km"), with the embedded model.

    python agents/http_service.py --port 8801
    curl -s 127.0.0.1:8801/measure -d '{"text": "12 kilometres"}'      # {"result": {"text": "..."}}

The body may also hold `instructions` (text) and `examples` (a list of {question, answer}). Paired with configs/wrappers/http.yaml.
The same agent takes everything in one text at /chat, {"message": ...} in and {"response": ...} out, as
configs/wrappers/openai_existing_agent.yaml asks it.
Needs the extra [service].
"""

from __future__ import annotations

import argparse
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gepa_atlas.errors import CallError
from gepa_atlas.llm.registry import build_model
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message

MODEL = build_model("local")  # cheap: the model itself is loaded at the first request
INSTRUCTIONS = "You write measurements with the symbol of their unit."


async def chat(request: Request) -> JSONResponse:
    try:
        text = (await request.json())["message"]
        turns = (Message("system", INSTRUCTIONS), Message("user", text))
    except (ValueError, KeyError, TypeError):
        return JSONResponse({"error": 'send {"message": "12 kilometres"}'}, status_code=400)
    try:
        completion = await MODEL.complete(ChatRequest(messages=turns, max_tokens=16))
    except CallError as error:
        return JSONResponse({"error": str(error)}, status_code=502)
    return JSONResponse({"response": completion.text.strip()})


async def measure(request: Request) -> JSONResponse:
    try:
        body = await request.json()
        turns = [Message("system", body.get("instructions") or INSTRUCTIONS)]
        for example in body.get("examples", []):
            turns += [Message("user", example["question"]), Message("assistant", example["answer"])]
        turns.append(Message("user", body["text"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return JSONResponse({"error": 'send {"text": "12 kilometres"}'}, status_code=400)
    try:
        completion = await MODEL.complete(ChatRequest(messages=tuple(turns), max_tokens=16))
    except CallError as error:
        return JSONResponse({"error": str(error)}, status_code=502)
    return JSONResponse({"result": {"text": completion.text.strip()}})


app = Starlette(routes=[Route("/measure", measure, methods=["POST"]), Route("/chat", chat, methods=["POST"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8801, help="0 takes a free one")
    listening = socket.create_server(("127.0.0.1", parser.parse_args().port))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/measure", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
