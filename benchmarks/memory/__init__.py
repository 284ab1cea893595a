"""What the memory stands: many writers that are killed, a million lessons, and whether a warm start helps."""
