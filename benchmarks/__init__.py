"""Benchmarks: worlds, peers, harness and statistics. They import gepa_atlas; gepa_atlas never imports them."""
