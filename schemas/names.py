"""Ids and names of characters, stages, items, attacks and action states, and what players type.

Names are lower case with underscores. Two numberings of characters exist: *external* (start block,
character select) and *internal* (post-frame events). Source of the ids: hohav/peppi and
project-slippi/slippi-js, collected in slippi_ids.json.
"""

import json
import re
import unicodedata
from importlib import resources

from schemas.errors import UnknownNameError, nearest

_IDS = json.loads(resources.files("schemas").joinpath("slippi_ids.json").read_text("utf-8"))


def slug(text: str) -> str:
    """A name as we write it: 'Pokémon Stadium' -> 'pokemon_stadium', "Yoshi's" -> 'yoshis'."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"['.]", "", plain.lower())
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def _table(key: str) -> dict[int, str]:
    return {int(number): slug(name) for number, name in _IDS[key].items()}


CHARACTERS = _table("characters_external")
"""external id -> name"""
CHARACTERS_INTERNAL = _table("characters_internal")
"""internal id -> name (popo and nana apart)"""
STAGES = _table("stages")
"""external stage id -> name"""
ITEMS = {**_table("items"), 52: "unnamed_52", 110: "mewtwo_disable"}
"""item type -> name; 52 and 110 occur in real replays and have no name in peppi's list"""
ATTACKS = {0: "none", **_table("attacks")}
"""attack id (last_attack_landed) -> name"""
PROJECTILES = frozenset(int(number) for number in _IDS["projectiles"])
"""item types that a fighter sends out and that move on their own"""

_STATE_TABLES = {
    slug(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", who)): {int(n): slug(s) for n, s in states.items()}
    for who, states in _IDS["action_states"].items()
}
COMMON_STATES = _STATE_TABLES.pop("common")
"""action state -> name for 0 to 340, which mean the same for everyone"""
SPECIAL_STATES = {
    number: _STATE_TABLES.get(name, {}) for number, name in CHARACTERS_INTERNAL.items()
}
"""internal character -> action state -> name, from 341 up"""

TOURNAMENT_STAGES = (2, 3, 8, 28, 31, 32)
SPECIAL_MODE_STAGES = frozenset(
    number for number, name in STAGES.items() if name.startswith(("target_test", "home_run"))
)

CHARACTER_ALIASES = {
    "falcon": "captain_falcon", "cf": "captain_falcon", "captain": "captain_falcon",
    "dk": "donkey_kong", "donkey": "donkey_kong",
    "gnw": "game_and_watch", "gw": "game_and_watch", "g_w": "game_and_watch",
    "mr_game_and_watch": "game_and_watch", "game_watch": "game_and_watch",
    "puff": "jigglypuff", "jiggs": "jigglypuff", "jiggly": "jigglypuff",
    "ics": "ice_climbers", "ic": "ice_climbers", "icies": "ice_climbers",
    "ice_climber": "ice_climbers", "climbers": "ice_climbers",
    "doc": "dr_mario", "drmario": "dr_mario",
    "yl": "young_link", "ylink": "young_link", "yink": "young_link",
    "ganon": "ganondorf", "pika": "pikachu", "mewt": "mewtwo", "m2": "mewtwo", "mew2": "mewtwo",
    "shiek": "sheik", "koopa": "bowser",
}  # fmt: skip
STAGE_ALIASES = {
    "fd": "final_destination", "final": "final_destination",
    "bf": "battlefield",
    "fod": "fountain_of_dreams", "fountain": "fountain_of_dreams",
    "ps": "pokemon_stadium", "stadium": "pokemon_stadium", "pokemon": "pokemon_stadium",
    "ys": "yoshis_story", "yoshis": "yoshis_story", "yoshi": "yoshis_story",
    "dl": "dream_land_n64", "dreamland": "dream_land_n64", "dream_land": "dream_land_n64",
    "dl64": "dream_land_n64", "dreamland_n64": "dream_land_n64",
}  # fmt: skip


def _resolve(kind: str, text: str, known: set[str], aliases: dict[str, str], at: int) -> str:
    name = slug(unicodedata.normalize("NFKC", text))
    name = aliases.get(name, name)
    if name in known:
        return name
    hint = nearest(name, known | set(aliases)) or f"for example {sorted(known)[0]}"
    raise UnknownNameError(f"unknown {kind} '{text}'", hint, position=at)


def character(text: str, position: int = 0) -> str:
    """The stored name of a character as a player may type it.

    Raises UnknownNameError with the nearest name; `position` goes into the error.
    """
    return _resolve("character", text, set(CHARACTERS.values()), CHARACTER_ALIASES, position)


def stage(text: str, position: int = 0) -> str:
    """The stored name of a stage as a player may type it.

    Raises UnknownNameError with the nearest name; `position` goes into the error.
    """
    return _resolve("stage", text, set(STAGES.values()), STAGE_ALIASES, position)


def character_name(external: int) -> str:
    """Name of an external id; an unknown one is kept as `character_99`."""
    return CHARACTERS.get(external, f"character_{external}")


def stage_name(number: int) -> str:
    """Name of a stage id; an unknown one is kept as `stage_99`."""
    return STAGES.get(number, f"stage_{number}")


def item_name(number: int) -> str:
    """Name of an item type; an unknown one is kept as `item_999`."""
    return ITEMS.get(number, f"item_{number}")


def attack_name(number: int) -> str:
    """Name of an attack id; an unknown one is kept as `attack_99`."""
    return ATTACKS.get(number, f"attack_{number}")


def state_name(internal_character: int, state: int) -> str:
    """Name of an action state; from 341 up it depends on the character."""
    if state in COMMON_STATES:
        return COMMON_STATES[state]
    return SPECIAL_STATES.get(internal_character, {}).get(state, f"state_{state}")
