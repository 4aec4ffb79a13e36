"""The same replays in whatever packing make the same store, and the ledger says where each lay."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.synthetic import make_game
from ingest.workers import ingest
from store.catalog import Catalog
from store.layout import open_layout
from tests.ingest.archives import MAKERS, Files, archive_bytes, make_zip
from tests.ingest.slpz_files import pack
from tests.kills import game_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def games(request: pytest.FixtureRequest) -> Files:
    """Name -> .slp of games of several versions: simulated ones, and real ones where they are."""
    versions = ((0, 1), (2, 0), (3, 9), (3, 19))
    made = {f"set/{n} ü.slp": make_game(n, n_frames=200, version=version).slp
            for n, version in enumerate(versions)}  # fmt: skip
    try:
        folder: Path = request.getfixturevalue("replays")
    except pytest.skip.Exception:
        return made
    real = sorted(folder.rglob("*.slp"), key=lambda path: path.stat().st_size)
    chosen = [path.read_bytes() for path in real[20:60:10]]
    made |= {f"real {n}.slp": slp for n, slp in enumerate(chosen) if pack(slp)}
    return made


def _folder(root: Path, games: Files) -> dict[str, tuple[str, str | None]]:
    for n, slp in enumerate(games.values()):
        (root / f"{n}.slp").write_bytes(slp)
    return {f"{n}": (f"{n}.slp", None) for n in range(len(games))}


def _slpz(root: Path, games: Files) -> dict[str, tuple[str, str | None]]:
    for n, slp in enumerate(games.values()):
        packed = pack(slp)
        assert packed is not None
        (root / f"{n}.slpz").write_bytes(packed)
    return {f"{n}": (f"{n}.slpz", None) for n in range(len(games))}


def _nested(root: Path, games: Files) -> dict[str, tuple[str, str | None]]:
    """Plain and .slpz members of an inner .zip and of an inner .7z."""
    scratch = root.parent
    halves: list[Files] = [{}, {}]
    for n, (name, slp) in enumerate(games.items()):
        packed = pack(slp)
        assert packed is not None
        halves[n % 2] |= {f"{name}z": packed} if n % 4 < 2 else {name: slp}
    inner = {"in/a.zip": archive_bytes("a.zip", halves[0], scratch),
             "b.7z": archive_bytes("a.7z", halves[1], scratch)}  # fmt: skip
    make_zip(root / "out.zip", inner)
    return {
        f"{outer}/{name}": ("out.zip", f"{outer}/{name}")
        for outer, half in zip(inner, halves, strict=True)
        for name in half
    }


def _archive(kind: str) -> Callable[[Path, Files], dict[str, tuple[str, str | None]]]:
    def make(root: Path, games: Files) -> dict[str, tuple[str, str | None]]:
        MAKERS[kind](root / kind, games)
        return {name: (kind, name) for name in games}

    return make


KINDS = ("a.zip", "a.7z", "a.tar.gz", "a.tar.xz", "a.TAR.ZST")
FORMS = {kind: _archive(kind) for kind in KINDS} | {"slpz": _slpz, "nested": _nested}


def store_of(root: Path, store: Path) -> tuple[dict[str, str], list[tuple[str, str | None]]]:
    """Game files by name with their hashes, and where the ledger says that replays lay."""
    ingest([root], store, workers=1)
    with Catalog(open_layout(store), read_only=True) as catalog:
        ledger = catalog.query("select source, member, outcome from lake.replays").to_pylist()
    assert {row["outcome"] for row in ledger} <= {"stored", "repaired"}
    return game_files(store), [(row["source"], row["member"]) for row in ledger]


@pytest.fixture(scope="module")
def plain(games: Files, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Game files of the .slp files themselves."""
    root = tmp_path_factory.mktemp("plain") / "replays"
    root.mkdir()
    _folder(root, games)
    files, _ = store_of(root, root.parent / "store")
    assert len(files) == len(games)
    return files


@pytest.mark.parametrize("form", FORMS)
def test_the_same_games_from_any_packing(
    form: str, games: Files, plain: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "replays"
    root.mkdir()
    lay = FORMS[form](root, games)
    files, ledger = store_of(root, tmp_path / "store")
    assert files == plain  # names are game ids, values hashes of the parquet bytes
    assert set(ledger) == {(str(root / name), member) for name, member in lay.values()}
    assert len(ledger) == len(games)
