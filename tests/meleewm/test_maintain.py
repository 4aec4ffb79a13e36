"""Verbs that look after a store, as a user runs them: damage named and healed, nothing lost."""

import json
import shutil
from pathlib import Path

import pytest

from tests.meleewm.conftest import done, run


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy of the ingested store, to be damaged."""
    shutil.copytree(store, tmp_path / "melee")
    return tmp_path / "melee"


@pytest.mark.slow
def test_damage_is_found_healed_and_a_lost_catalog_made_anew(
    own: Path, replay_folder: Path
) -> None:
    lock = json.loads(done("lock", "true", "--store", own))
    flipped, cut, gone, moved, *_ = sorted((own / "games").glob("*/*.parquet"))
    whole = {path: path.read_bytes() for path in (flipped, cut, gone)}
    spoilt = bytearray(whole[flipped])
    spoilt[len(spoilt) // 2] ^= 64
    flipped.write_bytes(spoilt)
    cut.write_bytes(whole[cut][: len(whole[cut]) // 2])
    gone.unlink()
    orphan = own / "games" / "00" / f"{'0' * 32}.{moved.name.split('.')[1]}.parquet"
    orphan.parent.mkdir(exist_ok=True)
    shutil.copyfile(moved, orphan)

    checked = run("verify", "--store", own, "--workers", 1)
    assert checked.returncode == 1, checked.stderr
    said = checked.stdout.splitlines()
    for kind, path in (("checksum", flipped), ("size", cut), ("missing", gone), ("orphan", orphan)):
        (line,) = [line for line in said if str(path.relative_to(own)) in line]
        assert line.startswith(f"{kind}: ")
        assert f"(game {path.name[:32]})" in line

    healed = json.loads(done("repair", "--store", own, "--from", replay_folder, "--json"))
    assert healed["adopted"] == [str(orphan.relative_to(own))]
    assert sorted(healed["restored"]) == [str(path.relative_to(own)) for path in whole]
    assert healed["left"] == healed["rewritten"] == []
    assert {path: path.read_bytes() for path in whole} == whole
    orphan.unlink()  # the copy of a game under another name was for this test alone

    for file in own.glob("catalog.sqlite*"):
        file.unlink()
    shutil.rmtree(own / "tables")
    lost = run("stats", "--store", own)
    assert lost.returncode == 1
    assert "meleewm rebuild" in lost.stderr
    done("rebuild", "--store", own, "--workers", 1)
    again = json.loads(done("lock", "true", "--store", own))
    assert again | {"request": 0} == lock | {"request": 0}
    checked = run("verify", "--store", own)
    assert checked.returncode == 0, checked.stdout
    # simulated players press no right analog trigger: a column that stands still
    still = "constant: p1.triggers_physical_r: always 0 in all 10 games of Slippi 3.19 (10)"
    assert still in checked.stdout.splitlines()


def test_remove_keeps_out_until_vacuum_and_after(own: Path, replay_folder: Path) -> None:
    first = json.loads(done("select", "true", "--json", "--store", own))
    game_id = first["members"][0]["game_id"]
    out = json.loads(done("remove", game_id, "--reason", "asked to", "--store", own, "--json"))
    assert out == {"removed": [game_id], "snapshot": first["snapshot"] + 1}
    assert (
        json.loads((own / "games" / game_id[:2] / f"{game_id}.removed").read_bytes())["reason"]
        == "asked to"
    )
    old = ("select", "true", "--json", "--store", own, "--snapshot", first["snapshot"])
    assert json.loads(done(*old)) == first

    refused = run("vacuum", "--store", own)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert "1 game file of removed games" in refused.stderr
    done("vacuum", "--store", own, "--yes")
    assert not list((own / "games").glob(f"*/{game_id}.*.parquet"))
    gone = run(*old)
    assert gone.returncode == 2
    assert "vacuumed" in gone.stderr
    done("ingest", replay_folder, "--store", own, "--workers", 1)
    left = json.loads(done("select", "true", "--json", "--store", own))
    assert [m["game_id"] for m in left["members"]] == [
        m["game_id"] for m in first["members"] if m["game_id"] != game_id
    ]
    assert run("verify", "--store", own).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("remove",), "one of both"),
        (("remove", "f" * 32), "nothing was removed"),
        (("remove", "--query", "true"), "--yes"),
        (("rebuild",), "--force"),
        (("repair", "--from", "nowhere.zip"), "nowhere.zip"),
    ],
)
def test_wrong_input_changes_nothing(store: Path, words: tuple[str, ...], said: str) -> None:
    before = sorted(store.rglob("*.parquet"))
    result = run(*words, "--store", store)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(store.rglob("*.parquet")) == before
