"""The tables, as the newest migration leaves them. A test compares the two.

traces      one row a lesson or session, with the whole line in `body`
attempts    what each side of a lesson took           rewards  what each judge said of each side
runs        a run: configuration, data, status         verdicts the word on its winner
candidates  with their contents                        lineage  who comes from whom
reviews     every change of a trace's state, with its evidence
items       guidance items                             evidence what an item was worth on one example of one run

`seq` numbers traces as they came in and makes every order total. Indices follow the filters: equality first,
then the order, then what else a page is filtered by, so that what is left out is left out before its row is read.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

HEAD = "0003"  # the newest migration
metadata = MetaData()
_SEQ = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows itself only where the type is INTEGER

traces = Table(
    "traces",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(20), nullable=False, unique=True),
    Column("kind", String(8), nullable=False),
    Column("run_id", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("candidate_id", Text, nullable=False),
    Column("example_id", Text, nullable=False),
    Column("sample", Integer, nullable=False),
    Column("split", Text, nullable=False),
    Column("question", Text, nullable=False),
    Column("before", Float),
    Column("after", Float),
    Column("delta", Float),
    Column("failure", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("state", String(12), nullable=False),
    Column("given_state", String(12), nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_traces_created", "created", "seq"),
    Index("ix_traces_after", "after", "created", "seq", "state"),
    Index("ix_traces_delta", "delta", "created", "seq", "state"),
    Index("ix_traces_state_created", "state", "created", "seq"),
    Index("ix_traces_operation_created", "operation", "created", "seq"),
    Index("ix_traces_operation_after", "operation", "after", "created", "seq", "state"),
    Index("ix_traces_operation_delta", "operation", "delta", "created", "seq", "state"),
    Index("ix_traces_operation_state_created", "operation", "state", "created", "seq"),
    Index("ix_traces_run", "run_id", "created", "seq", "state"),
)
attempts = Table(
    "attempts",
    metadata,
    Column("trace_id", String(20), primary_key=True),
    Column("side", String(8), primary_key=True),
    Column("stop", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("dollars", Float),
    Column("seconds", Float),
    sqlite_with_rowid=False,
)
rewards = Table(
    "rewards",
    metadata,
    Column("trace_id", String(20), primary_key=True),
    Column("side", String(8), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("judge", Text, nullable=False),
    Column("value", Float),
    Column("uncertainty", Float),
    Column("missing", Text, nullable=False),
    sqlite_with_rowid=False,
)
runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started", Float, nullable=False),
    Column("judges", Text, nullable=False),  # identity of the panel: promotion needs the same
    Column("source", Text, nullable=False),  # of the configuration
    Column("config", Text, nullable=False),  # as config.json has it
    Index("ix_runs_operation", "operation", "started"),
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("ruling", Text, nullable=False),
    Column("winner_id", Text, nullable=False),
    Column("gain", Float),
    Column("gain_low", Float),
    Column("gain_high", Float),
    Column("pairs", Integer, nullable=False),
    Column("body", Text, nullable=False),
)
candidates = Table(
    "candidates",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("candidate_id", Text, primary_key=True),
    Column("slot", Integer, nullable=False),  # -1: a seed
    Column("origin", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("body", Text, nullable=False),
)
lineage = Table(
    "lineage",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("candidate_id", Text, primary_key=True),
    Column("parent_id", Text, primary_key=True),
)
reviews = Table(
    "reviews",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("trace_id", String(20), nullable=False),
    Column("was", String(12), nullable=False),
    Column("state", String(12), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("evidence", Text, nullable=False),
    Index("ix_reviews_trace", "trace_id", "seq"),
)
items = Table(
    "items",
    metadata,
    Column("item_id", String(20), primary_key=True),
    Column("component", Text, nullable=False),
    Column("text", Text, nullable=False),
)
evidence = Table(
    "evidence",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("item_id", String(20), primary_key=True),
    Column("example_id", Text, primary_key=True),
    Column("operation", Text, nullable=False),
    Column("difference", Float, nullable=False),  # mean reward with the item less the mean without it, on this example
    Column("pairs", Integer, nullable=False),
    Index("ix_evidence_operation", "operation", "item_id"),
    Index("ix_evidence_item", "item_id"),
)
