"""What can go wrong in a run besides what the SDK says."""

from __future__ import annotations

from antefix.errors import AntefixError

__all__ = ["WorkerFailed"]


class WorkerFailed(AntefixError):
    """A worker could not do its task, and neither could another."""
