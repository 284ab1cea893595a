"""A server of the Assistants API on loopback, in front of any ChatModel: what `openai.assistant` is tried on now that OpenAI's is gone.

    python -m gepa_atlas.testing.assistants --port 8089     # the embedded model; the assistant is called asst_local

Serves what one run needs: POST of a thread and of a run on it, GET of the run and of its messages, DELETE of the thread; beside all of
`llm.serve`.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gepa_atlas.errors import BadRequest, NotFound
from gepa_atlas.llm.serve import Handler, serving
from gepa_atlas.ports import ChatRequest
from gepa_atlas.types import Message, digest

INSTRUCTIONS = "You are a helpful assistant."
_READ = {"assistant_id", "instructions", "additional_instructions", "model", "temperature", "max_completion_tokens", "metadata", "stream"}


class AssistantsHandler(Handler):
    """Threads live as long as the class that holds them: derive one for each server. `polls`: looks at a run before it has ended."""

    assistant = "asst_local"
    polls = 1
    threads: dict[str, dict[str, Any]]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        steps = urlsplit(path).path.removeprefix("/v1/").split("/")
        if steps[0] != "threads":
            return super().answer(method, path, body)
        if self.headers.get("openai-beta") != "assistants=v2":
            raise BadRequest("the Assistants API wants the header `OpenAI-Beta: assistants=v2`")
        if method == "POST" and steps == ["threads"]:
            return self._thread(body)
        thread = self.threads.get(steps[1])
        if thread is None:
            raise NotFound(f"no thread found with id {steps[1]!r}")
        if method == "POST" and steps[2:] == ["runs"]:
            return self._started(thread, body)
        if method == "DELETE" and len(steps) == 2:
            del self.threads[steps[1]]
            return {"id": steps[1], "object": "thread.deleted", "deleted": True}
        if method == "GET" and steps[2:3] == ["runs"]:
            return self._looked_at(thread)
        if method == "GET" and steps[2:] == ["messages"]:
            return self._messages(thread, parse_qs(urlsplit(path).query))
        raise NotFound(f"no such path: {path}")

    def _thread(self, body: dict[str, Any]) -> dict[str, Any]:
        if extra := body.keys() - {"messages", "metadata"}:
            raise BadRequest(f"`{sorted(extra)[0]}` is not served")
        turns = tuple(Message(m["role"], m["content"]) for m in body.get("messages", ()))
        made = {"id": "thread_" + digest([body, time.monotonic_ns()], 16), "object": "thread", "created_at": int(time.time())}
        self.threads[str(made["id"])] = {"turns": turns}
        return made | {"metadata": body.get("metadata") or {}, "tool_resources": {}}

    def _started(self, thread: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        if extra := body.keys() - _READ:
            raise BadRequest(f"`{sorted(extra)[0]}` is not served")
        if body["assistant_id"] != self.assistant or body.get("stream"):
            raise NotFound(f"no assistant found with id {body['assistant_id']!r} that answers in one piece")
        told = "\n\n".join(filter(None, (body.get("instructions") or INSTRUCTIONS, body.get("additional_instructions"))))
        limit = body.get("max_completion_tokens") or 512
        heat = float(body.get("temperature") or 0.0)
        completion = self.ask(ChatRequest((Message("system", told), *thread["turns"]), max_tokens=limit, temperature=heat))
        thread_id = self.path.split("/")[3]
        cut = completion.finish == "length"
        run: dict[str, Any] = {
            "id": "run_" + thread_id.removeprefix("thread_"),
            "object": "thread.run",
            "assistant_id": self.assistant,
            "thread_id": thread_id,
            "created_at": int(time.time()),
            "status": "queued",
            "instructions": told,
            "model": body.get("model") or "local",
            "tools": [],
            "parallel_tool_calls": True,
            "metadata": body.get("metadata") or {},
            "incomplete_details": {"reason": "max_completion_tokens"} if cut else None,
            "usage": {
                "prompt_tokens": completion.usage.input_tokens or 0,
                "completion_tokens": completion.usage.output_tokens or 0,
                "total_tokens": completion.usage.tokens or 0,
            },
        }
        thread |= {"run": run, "text": completion.text, "looks": 0, "end": "incomplete" if cut else "completed"}
        return run | {"usage": None, "incomplete_details": None}

    def _looked_at(self, thread: dict[str, Any]) -> dict[str, Any]:
        thread["looks"] += 1
        run: dict[str, Any] = thread["run"]
        if thread["looks"] < self.polls:
            return run | {"status": "in_progress", "usage": None, "incomplete_details": None}
        run["status"] = thread["end"]
        return run

    def _messages(self, thread: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any]:
        run = thread["run"]
        if query.get("run_id", [run["id"]]) != [run["id"]]:
            raise BadRequest("no such run in this thread")
        message = {
            "id": "msg_" + run["id"][4:],
            "object": "thread.message",
            "created_at": run["created_at"],
            "thread_id": run["thread_id"],
            "run_id": run["id"],
            "assistant_id": self.assistant,
            "role": "assistant",
            "status": "completed",
            "attachments": [],
            "metadata": {},
            "content": [{"type": "text", "text": {"value": thread["text"], "annotations": []}}],
        }
        return {"object": "list", "data": [message], "first_id": message["id"], "last_id": message["id"], "has_more": False}


def handler(polls: int = 1) -> type[AssistantsHandler]:
    """A handler with threads of its own."""
    return type("Threads", (AssistantsHandler,), {"threads": {}, "polls": polls})


def main() -> None:
    import threading

    from gepa_atlas.llm.local import LocalModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8089, help="0 takes a free one")
    with serving(LocalModel(), port=parser.parse_args().port, handler=handler()) as url:
        print(url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
