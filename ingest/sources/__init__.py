"""Where replays come from: files, folders, archives. One item a replay."""

from ingest.sources.folders import files
from ingest.sources.item import REPLAY_BYTES_MAX, Item, read_file
from ingest.sources.reading import Items, items, watch

__all__ = ["REPLAY_BYTES_MAX", "Item", "Items", "files", "items", "read_file", "watch"]
