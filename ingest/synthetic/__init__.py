"""Replays made from a small seeded simulation, so that nobody's games are needed to try anything.

`make_game` gives the bytes of one and what is in it, `write_games` fills a folder.
"""

from ingest.synthetic.files import write_games
from ingest.synthetic.game import SyntheticGame, make_game
from ingest.synthetic.truth import Side, Truth

__all__ = ["Side", "SyntheticGame", "Truth", "make_game", "write_games"]
