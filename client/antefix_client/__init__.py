"""What runs on the user's device: personal model, profile, key custody. Imports no torch when imported."""
