"""The gepa package's own tests of `optimize`, run against `gepa_atlas.compat.gepa`."""
