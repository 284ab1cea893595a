"""Drop-in doors: `from gepa_atlas.compat import gepa` in place of `import gepa`."""
