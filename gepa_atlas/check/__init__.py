"""`gepa-atlas check`: everything that can be known before a search is paid for, row by row, and what the search will take."""
