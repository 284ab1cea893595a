"""The live page: runs below a directory, one as it goes on in another process, the report of a finished one. `gepa-atlas ui`."""
