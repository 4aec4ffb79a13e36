"""One tiny store for each released format, and what it must say for ever.

`python -m tests.golden_store` makes those of the present format (games of nobody, simulated) where
there are none; a released one is never made again. tests/store/test_golden.py opens all of them.
"""

import json
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from ingest.synthetic import make_game
from ingest.workers import ingest
from schemas.shard import Request
from store.catalog import Catalog
from store.layout import FORMAT, Layout, open_layout
from store.select import select
from store.shards import VirtualTar
from store.sql import run_sql
from store.upkeep import remove

GOLDEN = Path(__file__).resolve().parent / "golden"
SQL = {
    "games": "select game_id, rev, stage, version, n_frames, repaired from games order by 1",
    "sides": "select char, opp_char, won, stocks_taken, items from perspectives order by all",
    "frames": "select count(*) as n, min(frame) as first, sum(p0.percent) as damage from frames",
    "pframes": "select char, count(*) as n, count(hitlag) as hitlags from pframes group by 1"
    " order by 1",
    "items": "select type, count(*) as n from items group by 1 order by 1",
    "ledger": "select member, outcome, rule from replays order by 1",
}
REQUESTS = (Request(), Request("char='fox'", games_per_shard=2), Request(recordings="all"))


def said(layout: Layout) -> dict[str, Any]:
    """What a store answers: dataset ids, shards and their bytes, SQL; plain JSON values."""
    answers: dict[str, Any] = {}
    with Catalog(layout, read_only=True) as catalog:
        newest = catalog.snapshot()
        for request in REQUESTS:
            for snapshot in (newest, newest - 1):
                wanted = Request(**{**vars(request), "snapshot": snapshot})
                selection = select(layout, wanted, catalog=catalog)
                tars = [VirtualTar(layout, members) for members in selection.shards]
                answers[f"{request.query} {request.recordings} {snapshot}"] = {
                    "dataset_id": selection.dataset_id,
                    "etags": [tar.etag for tar in tars],
                    "shards": [sha256(b"".join(tar.read())).hexdigest() for tar in tars],
                }
        for name, text in SQL.items():
            answers[name] = run_sql(layout, text, catalog=catalog).to_pylist()
    told: dict[str, Any] = json.loads(json.dumps(answers, default=str))
    return told


def unpacked(archive: Path, folder: Path) -> Layout:
    """A golden store in a folder of its own."""
    with tarfile.open(archive) as tar:
        for entry in tar:
            path = folder / entry.name
            if file := tar.extractfile(entry):
                path.write_bytes(file.read())
            else:
                path.mkdir()
    return open_layout(folder / "melee")


def _make(folder: Path) -> Layout:
    games = [
        make_game(seed=1, chars=("fox", "marth"), n_frames=90),
        make_game(seed=2, chars=("falco", "fox"), version=(2, 0, 1), n_frames=90),
        make_game(seed=3, chars=("ice_climbers", "peach"), version=(3, 16, 0), n_frames=90),
        make_game(seed=4, chars=("fox", "sheik"), version=(3, 4, 0), n_frames=90),
        make_game(seed=5, chars=("fox", "samus"), n_frames=90, recording=0),
        make_game(seed=5, chars=("fox", "samus"), n_frames=90, recording=1, rollbacks=True),
        make_game(seed=6, chars=("link", "fox"), n_frames=90),
    ]
    archive = folder / "games.tar"
    with tarfile.open(archive, "w") as tar:
        for n, game in enumerate(games):
            (folder / f"{n}.slp").write_bytes(game.slp)
            tar.add(folder / f"{n}.slp", f"{n}.slp")
        (folder / "nothing.slp").write_bytes(b"no replay")
        tar.add(folder / "nothing.slp", "nothing.slp")
    ingest([archive], folder / "melee", workers=1)
    layout = open_layout(folder / "melee")
    with Catalog(layout) as catalog:
        link = select(layout, Request("char='link'"), catalog=catalog).members[0]
        remove(layout, [link.game_id], "golden", catalog=catalog)
    return layout


def main() -> None:
    """Make the golden store of the present format, unless it is there."""
    archive = GOLDEN / f"store_format_{FORMAT}.tar.xz"
    if archive.exists():
        raise SystemExit(f"{archive.name} is there: a released format is never made again")
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        layout = _make(Path(folder))
        with tarfile.open(archive, "w:xz") as tar:
            tar.add(layout.root, "melee", filter=_nobodys)
        answers = said(layout)
    text = json.dumps(answers, indent=1) + "\n"
    (GOLDEN / f"store_format_{FORMAT}.json").write_text(text, "utf-8")


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
