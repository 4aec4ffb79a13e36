"""Damaged replays, and those that only peppi cannot read, made into whole ones.

`rescue` gives the bytes for peppi and what to take out of its answer; REPAIRS names the steps.
"""

from ingest.repair.rescue import REPAIRS, Rescued, rescue

__all__ = ["REPAIRS", "Rescued", "rescue"]
