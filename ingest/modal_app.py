"""Ingest on Modal: one container with many cores fills a store on a volume.

    modal run ingest/modal_app.py --paths ranked.7z,dumps --workers 16

Imports without an account; `ingest_paths.local(...)` runs the very body on this machine. One
container, because the catalog of a folder store has one writer at a time.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import modal

REPLAYS, STORE = Path("/replays"), Path("/store")
WORKERS = 16
HOUR_S = 3600
_UNUSED = ["**/__pycache__/**"]
_PACKAGES = (
    "duckdb", "duckdb-extension-ducklake", "duckdb-extension-sqlite-scanner", "numpy", "peppi-py",
    "py7zr", "pyarrow", "rich", "zstandard",
)  # fmt: skip


def image() -> modal.Image:
    """The versions that are installed here, so that games there are the games that were tried."""
    pinned = [f"{name}=={version(name)}" for name in _PACKAGES]
    built = modal.Image.debian_slim(python_version="3.11").uv_pip_install(*pinned)
    # Sources last: no rebuild. Ours have JSON beside the code, which Modal would drop.
    return built.add_local_python_source("schemas", "store", "ingest", ignore=_UNUSED)


app = modal.App("meleewm-ingest")
replays = modal.Volume.from_name("meleewm-replays", create_if_missing=True, version=2)
store = modal.Volume.from_name("meleewm-store", create_if_missing=True, version=2)


@app.function(
    image=image(),
    cpu=WORKERS,
    memory=32_768,
    timeout=24 * HOUR_S,  # of one attempt; the next one skips what is stored
    retries=modal.Retries(max_retries=5, initial_delay=60.0),
    volumes={str(REPLAYS): replays.read_only(), str(STORE): store},
)
def ingest_paths(
    paths: list[str], store_dir: str = str(STORE), workers: int = WORKERS
) -> dict[str, Any]:
    """Bring files, folders and archives (relative ones of the replays' volume) into the store.

    Returns the summary's counts, which add up to the files.
    """
    from ingest.workers import ingest

    if not modal.is_local():
        store.reload()
    summary = ingest([REPLAYS / path for path in paths], Path(store_dir), workers=workers)
    if not modal.is_local():
        store.commit()
    return summary.as_dict()


@app.local_entrypoint()
def main(paths: str, workers: int = WORKERS) -> None:
    """Ingest a comma-separated list of paths of the volume, and print what became of them."""
    summary = ingest_paths.with_options(cpu=workers).remote(paths.split(","), workers=workers)
    print(summary)  # noqa: T201 - a script's result
