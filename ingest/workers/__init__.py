"""Ingest: worker processes parse replays and write game files, the calling process commits rows.

peppi holds the GIL, panics and may die, so each worker is a process of its own, fed by one thread
here; a worker that dies or hangs costs at most the replay it held. Workers end with their parent.
Results do not depend on the number of workers or on the order of files.
"""

from ingest.workers.reparse import reparse
from ingest.workers.run import ingest, watch
from ingest.workers.summary import Progress, Summary

__all__ = ["Progress", "Summary", "ingest", "reparse", "watch"]
