"""Hosted inference: many users' prefixes in one running batch, each under its owner's grant."""
