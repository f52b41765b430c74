"""A folder in memory for what tests write."""

import os
from pathlib import Path

MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
"""Where nothing waits for a disk: killed processes lose nothing there either; a power cut is not tested."""
