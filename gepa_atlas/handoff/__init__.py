"""From the lessons of a run to training sets: selection, export, validation. No torch."""
