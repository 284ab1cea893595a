"""The run directory: run.db is the truth (a ledger of paid calls and told results), everything else is derived from it."""

from gepa_atlas.store.exports import atomic_write, write_json, write_jsonl
from gepa_atlas.store.log import Event
from gepa_atlas.store.run import Run
from gepa_atlas.store.view import RunView, list_runs

__all__ = ["Event", "Run", "RunView", "atomic_write", "list_runs", "write_json", "write_jsonl"]
