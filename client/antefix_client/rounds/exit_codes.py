"""How the process of a node ends, for the service that started it."""

DEVICE_REFUSED = 3
"""The server does not let this device in."""
KEY_REJECTED = 4
"""Flower does not take the node's key any more."""
