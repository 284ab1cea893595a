"""Bridges to other libraries. Each imports its library on first use; `gepa_atlas.dspy` and `gepa_atlas.compat` are their doors."""
