"""Whether a store is what its catalog says, and whether its columns say anything at all.

Sizes, checksums, schema and frame numbering of every game file, the catalog's tables against each
other, disk against catalog; then columns that never change, and values out of bounds.
"""

from store.verify.check import verify
from store.verify.findings import DAMAGE, Finding

__all__ = ["DAMAGE", "Finding", "verify"]
