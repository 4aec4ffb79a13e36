"""`python -m benchmarks [FOLDER]`: every figure, each beside its baseline in the same run."""

import sys
from pathlib import Path

from benchmarks import ingest, loader, store

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else None

if __name__ == "__main__":
    ingest.main(FOLDER)
    print()
    loader.main(FOLDER)
    print()
    store.main([])
