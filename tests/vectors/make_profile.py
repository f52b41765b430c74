"""Writes `tests/vectors/profile`, a profile of today's format: `python -m tests.vectors.make_profile`."""

import shutil
from pathlib import Path

import torch

from antefix import Prefix
from antefix.keys import Cost
from antefix_client import PersonalModel
from antefix_client.profile.version_history import Version, utc_now
from tests.support import tiny_models

FOLDER = Path(__file__).parent / "profile"
CHEAP = Cost(memory_kib=19 * 1024, iterations=2, lanes=1)


def main() -> None:
    """Make it anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    base = tiny_models.base("llama")
    with PersonalModel.create(FOLDER, unlock="the passphrase of the vector", base=base, cost=CHEAP) as model:
        model.remember(["one", "two", "three"])
        prefix = Prefix(torch.full((base.layout.size(2),), 0.5), base.layout, base.fingerprint)
        model.runtime.add_version(
            model.session.profile,
            prefix,
            Version(number=0, made=utc_now(), how="learned", base="", digest=""),
        )


if __name__ == "__main__":
    main()
