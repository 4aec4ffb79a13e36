"""Where replays come from: files, folders, archives. One item a replay."""

from ingest.sources.archives import files, items
from ingest.sources.item import REPLAY_BYTES_MAX, Item, read_file

__all__ = ["REPLAY_BYTES_MAX", "Item", "files", "items", "read_file"]
