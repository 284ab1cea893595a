"""Whether what was trained goes live: statistics of an evaluation, the gate, the bundle and its registry. numpy only."""
