"""The shared prefix as a vector, and back into a file. Imports torch when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from antefix_server.errors import ServerUnfit

if TYPE_CHECKING:
    from antefix import Prefix


class SharedVector:
    """Numbers of a shared prefix, and what they are for.

    Attributes:
        values: fp32, flat.
    """

    def __init__(self, prefix: Prefix) -> None:
        """Take a prefix."""
        self._prefix = prefix
        self.values: NDArray[np.float32] = prefix.values.numpy()

    @classmethod
    def of(cls, content: bytes) -> SharedVector:
        """Of a prefix file.

        Raises:
            PrefixFileRefused: it is none.
        """
        from antefix import Prefix

        return cls(Prefix.from_bytes(content))

    def with_values(self, values: NDArray[np.float32]) -> bytes:
        """Content of a file with other numbers.

        Raises:
            ServerUnfit: some are NaN or infinite.
        """
        import torch

        from antefix import Prefix

        if not np.isfinite(values).all():
            raise ServerUnfit("the new shared prefix has numbers that are NaN or infinite", "lower the rates")
        prefix = Prefix(torch.from_numpy(values.copy()), self._prefix.layout, self._prefix.base_fingerprint)
        return prefix.to_bytes()
