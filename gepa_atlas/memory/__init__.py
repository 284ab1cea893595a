"""What was learned, across runs: a durable store of traces (SQLite or PostgreSQL), their review, and the skills they prove.

config   the `memory:` block, and what a store's address may be
rows     from a line of traces.jsonl, or of an ATLAS export, to rows; pure
schema   the tables; migrations/ brings an older store to them
store    Memory: the one writer, which redacts, and the one reader
query    filters, and what is listed and counted
review   pending, approved, quarantined, golden
drift    what has changed for an operation lately
skills   guidance items with what they were worth, from pairs of candidates that differ in one item
ingest   a run directory into the store; live is the same while the run goes on
exchange JSONL, ATLAS session traces and Parquet, in and out
warm     what a new run on a similar task can start from

SQLAlchemy and Alembic are loaded with `store`, on first use. The hand-off asks `Memory.states`.
"""
