"""RIM, the reward system: judges (programs first, models where no program can), a panel that pools them, and calibration.

config.py     what a user writes; one Settings model per judge type, beside the judge
judges/       one judge a file
panel.py      the panel: which judges are active, their pooled word, None below the quorum
"""

from gepa_atlas.rim.config import RimConfig
from gepa_atlas.rim.panel import Delta, Panel, Seat, build_panel

__all__ = ["Delta", "Panel", "RimConfig", "Seat", "build_panel"]
