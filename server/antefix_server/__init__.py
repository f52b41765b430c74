"""The coordinator: registry, vault, releases, rounds. Imports no torch when imported."""
