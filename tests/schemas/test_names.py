"""Names that players type find the stored ones; wrong ones name the nearest."""

import pytest

from schemas import names
from schemas.errors import UnknownNameError


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("fox", "fox"),
        ("Falcon", "captain_falcon"),
        ("ICs", "ice_climbers"),
        ("G&W", "game_and_watch"),
    ],
)
def test_characters_as_players_type_them(typed: str, stored: str) -> None:
    assert names.character(typed) == stored


@pytest.mark.parametrize(
    ("typed", "stored"),
    [("fd", "final_destination"), ("Yoshi's Story", "yoshis_story"), ("DL", "dream_land_n64")],
)
def test_stages_as_players_type_them(typed: str, stored: str) -> None:
    assert names.stage(typed) == stored


def test_unknown_character_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="nearest: fox"):
        names.character("fxo")


def test_battlefield_and_final_destination_are_not_confused() -> None:
    assert (names.STAGES[31], names.STAGES[32]) == ("battlefield", "final_destination")


def test_fox_has_two_numbers() -> None:
    assert names.CHARACTERS[2] == names.CHARACTERS_INTERNAL[1] == "fox"


def test_special_states_depend_on_the_character() -> None:
    assert names.state_name(1, 341) == "blaster_ground_startup"
    assert names.state_name(9, 341) != names.state_name(1, 341)
    assert names.state_name(1, 14) == "wait"


def test_aliases_lead_to_names() -> None:
    assert set(names.CHARACTER_ALIASES.values()) <= set(names.CHARACTERS.values())
    assert set(names.STAGE_ALIASES.values()) <= set(names.STAGES.values())
