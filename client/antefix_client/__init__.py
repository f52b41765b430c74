"""What runs on the user's device: personal model, profile, key custody. Imports no torch when imported.

Start with `PersonalModel`. Errors are in `antefix_client.errors`.
"""

from antefix.data.example import Example
from antefix_client.model import Budget, Keyring, LearnReport, PersonalModel, Status, Version

__all__ = ["Budget", "Example", "Keyring", "LearnReport", "PersonalModel", "Status", "Version"]
