"""gepa's own adapters, unchanged, behind our search: RAG over a vector store, tools of an MCP server process, and a DSPy program."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from gepa_atlas.compat import gepa

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of the guests
CITIES = ("oslo", "rome", "lima", "cairo", "paris", "quito", "delhi", "tunis", "accra", "minsk", "seoul", "hanoi")


class Quiet:
    def log(self, message: str) -> None:
        pass


def search(adapter: Any, seed: dict[str, str], data: list[Any], **given: Any) -> Any:
    result = gepa.optimize(
        seed_candidate=seed, trainset=data[:6], valset=data[6:], adapter=adapter, max_metric_calls=40, logger=Quiet(), **given
    )  # fmt: skip
    scores = result.val_aggregate_scores
    assert result.best_idx > 0 and scores[result.best_idx] > scores[0] + 0.2
    assert result.total_metric_calls <= 40
    return result


def test_generic_rag() -> None:
    from gepa.adapters.generic_rag_adapter import GenericRAGAdapter, VectorStoreInterface

    class Shelf(VectorStoreInterface):
        def similarity_search(self, query: str, k: int = 5, filters: Any = None) -> list[dict[str, Any]]:
            found = [c for c in CITIES if c in query]
            return [{"content": f"The code of {c} is {c}-77.", "metadata": {"doc_id": c}, "score": 1.0} for c in found][:k]

        def vector_search(self, query_vector: list[float], k: int = 5, filters: Any = None) -> list[dict[str, Any]]:
            return []

        def get_collection_info(self) -> dict[str, Any]:
            return {"name": "shelf", "document_count": len(CITIES)}

    def model(messages: list[dict[str, str]]) -> str:
        asked = messages[-1]["content"] + messages[0]["content"]
        city = next((c for c in CITIES if c in asked), "")
        return f"{city}-77" if "copy the code" in asked.lower() else "I do not know."

    data = [
        {"query": f"what is the code of {c}?", "ground_truth_answer": f"{c}-77", "relevant_doc_ids": [c], "metadata": {}} for c in CITIES
    ]
    adapter = GenericRAGAdapter(Shelf(), model, embedding_function=lambda text: [0.0])
    result = search(adapter, {"answer_generation": "Answer."}, data, reflection_lm=lambda prompt: "```\nCopy the code from the text.\n```")
    assert "Copy the code" in result.best_candidate["answer_generation"]


SERVER = """
import json, sys

for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    method, result = request["method"], {}
    if method == "initialize":
        result = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "codes", "version": "1"}}
    if method == "tools/list":
        schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        result = {"tools": [{"name": "code_of", "description": "?", "inputSchema": schema}]}
    if method == "tools/call":
        result = {"content": [{"type": "text", "text": request["params"]["arguments"]["city"] + "-77"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
"""


def test_tools_of_an_mcp_server(tmp_path: Path) -> None:
    mcp = pytest.importorskip("mcp", reason="the extra [mcp] is not installed; [dev] has it")
    from gepa.adapters.mcp_adapter import MCPAdapter

    (tmp_path / "server.py").write_text(SERVER)

    def model(messages: list[dict[str, str]]) -> str:
        everything = " ".join(m["content"] for m in messages)
        city = next(c for c in CITIES if c in everything)
        if f"{city}-77" in everything:  # the second pass: the tool has answered
            return f"{city}-77"
        call = {"action": "call_tool", "tool": "code_of", "arguments": {"city": city}}
        return json.dumps(call if "code of a city" in everything else {"action": "answer", "text": "?"})

    data = [
        {"user_query": f"code of {c}?", "tool_arguments": {"city": c}, "reference_answer": f"{c}-77", "additional_context": {}}
        for c in CITIES
    ]
    adapter = MCPAdapter(
        tool_names="code_of",
        task_model=model,
        metric_fn=lambda item, output: float(item["reference_answer"] in output),
        server_params=mcp.StdioServerParameters(command=sys.executable, args=["-S", str(tmp_path / "server.py")]),
    )
    result = search(adapter, {"tool_description": "A tool."}, data, reflection_lm=lambda prompt: "```\nGives the code of a city.\n```")
    assert result.best_candidate == {"tool_description": "Gives the code of a city."}


def test_a_dspy_program_behind_dspys_own_adapter() -> None:
    pytest.importorskip("dspy", reason="the extra [dspy] is not installed; [dev] has it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import dspy
        from dspy.teleprompt.gepa.gepa_utils import DspyAdapter

    from tests.bridges.toy_lm import ADVICE, ToyLM, examples, metric

    toy, program = ToyLM(), dspy.Predict("question -> answer")

    def feedback(module_inputs: Any, module_outputs: Any, **_: Any) -> dict[str, Any]:
        return dict(metric(module_inputs, module_outputs).items())

    adapter = DspyAdapter(program, metric, {"self": feedback}, num_threads=2, reflection_lm=toy)
    with dspy.context(lm=toy):
        result = search(adapter, {"self": program.signature.instructions}, examples(0, 14))
    assert result.best_candidate == {"self": ADVICE}
