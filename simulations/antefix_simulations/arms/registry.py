"""Which arms there are.

An arm is one file in this folder and one line in `ARMS`. Settings, tasks, tuning, cost, summary, comparison
and report read the names from here. Imports no arm and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from antefix.errors import InvalidArgument
from antefix_simulations.arms.interface import Arm

__all__ = ["ARMS", "arm_class", "optional_arms", "require_arms"]

ARMS: dict[str, str | None] = {
    "none": None,
    "context": "antefix_simulations.arms.in_context:InContext",
    "retrieved": "antefix_simulations.arms.in_context:Retrieved",
    "shared": None,
    "others": None,
    "lora": "antefix_simulations.arms.finetuning:Lora",
    "full": "antefix_simulations.arms.finetuning:Full",
    "private": None,
}
"""The class of each arm; None for what every run measures. In the order of tables."""


def optional_arms() -> list[str]:
    """Names that the setting `arms` takes."""
    return [name for name, home in ARMS.items() if home is not None]


def arm_class(name: str) -> type[Arm]:
    """Import an arm.

    Args:
        name: one of `optional_arms`.
    """
    module, _, attribute = (ARMS[name] or "").partition(":")
    arm: type[Arm] = getattr(import_module(module), attribute)
    return arm


def require_arms(names: Sequence[str]) -> None:
    """Refuse arms whose packages are not installed.

    Raises:
        InvalidArgument: names the arm and the extra.
    """
    for name in names:
        for package in arm_class(name).needs:
            if find_spec(package) is None:
                raise InvalidArgument(
                    f"the arm {name} needs the package {package}", f"pip install 'antefix[{package}]'"
                )
