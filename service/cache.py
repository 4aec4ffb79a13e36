"""Datasets in memory: the selections that were used last, and what their answers are made of."""

import threading
from collections import OrderedDict
from functools import cached_property

from schemas.errors import MissingGamesError
from schemas.shard import FilePart, Manifest
from service.parts import Part, Source
from store.layout import Layout
from store.select import Selection
from store.shards import VirtualTar


class Held:
    """A selection in memory with what its answers are made of; each made on first ask."""

    def __init__(self, layout: Layout, selection: Selection) -> None:
        self._layout, self.selection = layout, selection

    @cached_property
    def manifest(self) -> Manifest:
        """The head, its URLs relative."""
        return self.selection.manifest()

    @cached_property
    def members(self) -> Source:
        """members.parquet."""
        return Source.of(self.selection.members_parquet())

    @cached_property
    def lock(self) -> Source:
        """The lock file."""
        return Source.of(self.selection.lock().to_json().encode())

    def tar(self, n: int) -> Source:
        """One shard. Raises NotFoundError, and MissingGamesError where game files are gone."""
        tar = VirtualTar(self._layout, self.selection.shard(n))
        parts: list[Part] = []
        for part in tar.parts:
            if isinstance(part, FilePart):
                path = self._layout.game_path(part.game_id, part.rev)
                if not path.exists():  # before the head is sent: afterwards nobody can be told
                    message = f"game {part.game_id} of shard {n} is no longer in the store"
                    raise MissingGamesError(message, "ask for the dataset again")
                parts.append((path, part.size))
            else:
                parts.append(part)
        return Source(parts, tar.size, tar.etag)


class Cache:
    """The selections that were used last, bounded by their games. Safe for threads."""

    def __init__(self, layout: Layout, games_max: int) -> None:
        self._layout, self._games_max = layout, games_max
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, dataset_id: str) -> Held | None:
        """A selection that is in memory."""
        with self._lock:
            if dataset_id in self._held:
                self._held.move_to_end(dataset_id)
            return self._held.get(dataset_id)

    def put(self, selection: Selection) -> Held:
        """Keep a selection, at the price of those that were not used for longest."""
        held = Held(self._layout, selection)
        with self._lock:
            self._held[selection.dataset_id] = held
            self._held.move_to_end(selection.dataset_id)
            games = sum(len(other.selection.table) for other in self._held.values())
            while games > self._games_max and len(self._held) > 1:
                games -= len(self._held.popitem(last=False)[1].selection.table)
        return held
