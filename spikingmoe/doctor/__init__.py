"""What this machine and environment can do, and how to mend what they cannot."""

from spikingmoe.doctor.check import Check
from spikingmoe.doctor.examination import examine

__all__ = ["Check", "examine"]
