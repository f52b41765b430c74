"""The app that Flower carries in rounds, by its digest: what a device takes part in."""

from __future__ import annotations

DIGEST = "9f35ce4e10f2636b7e23cac1c62775c83f7aa39ba79940ba862234aeb1ef20cf"
"""SHA-256 of the bundle that Flower builds of `antefix_server/bundle`; a test builds it and compares."""
