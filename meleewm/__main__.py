"""`python -m meleewm`: the command without its console script."""

import sys

from meleewm.cli import main

if __name__ == "__main__":
    sys.exit(main())
