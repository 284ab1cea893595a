"""The pure core: numpy only, no clock, no I/O, no await. It says what it wants and is told what happened."""
