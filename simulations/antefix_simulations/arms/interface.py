"""What an arm is: another way to use one user's texts, measured beside a private prefix.

Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from antefix import FrozenBase, Prefix
    from antefix_simulations.data.store import Split

__all__ = ["Arm", "MethodSettings"]

Count = Annotated[int, Field(ge=1)]


class MethodSettings(BaseModel):
    """How each user's texts are cut, learnt from and judged: by private prefixes, and by arms beside them.

    Attributes:
        max_prompt_tokens: prompts are cut to so many.
        max_text_tokens: longer texts are left out.
        cohort_size: users of one task.
        micro_batch_tokens: of one forward and backward pass, a multiple of 64; 0 for 512 on a CPU and 8192 on
            a GPU.
        private: give each user a private prefix after the rounds.
        private_passes, private_learning_rate, private_batch_size: of private prefixes.
        others: other users' prefixes that each user's texts are read under; 0 for none.
        matrix: users of the table of everybody under everybody's prefix.
        arms: more to compare with, by commas; names of `antefix_simulations.arms.registry`.
        context_tokens: of a row with texts in front.
        retrieved_texts: of them, where the nearest are chosen.
        lora_rank, lora_learning_rate, full_learning_rate: of those arms; passes and batches are those of
            private prefixes.
        newcomers: new users that every round's shared prefix is tried on; 0 for all.
        seal: store private prefixes as sealed records in a vault.
        histories: numbers of texts, by commas: private prefixes of the users who have at least the most of
            them, from so many of their newest texts.
        generate: held-out texts with a prompt, of each user, that the base writes under no prefix, the shared
            and the private one; 0 for none.
        generate_tokens: of such a text at most.
        tune_users: whose training texts choose the learning rate of each method that trains; 0 to take the
            rates as they are.
        tune_factors: by commas: the grid, in multiples of those rates.
        seed: of everything.
    """

    max_prompt_tokens: Count = 64
    max_text_tokens: Count = 256
    cohort_size: Count = 32
    micro_batch_tokens: Annotated[int, Field(ge=0, le=2**20, multiple_of=64)] = 0
    private: bool = True
    private_passes: Annotated[float, Field(gt=0)] = 2.5
    private_learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-3
    private_batch_size: Count = 4
    others: Annotated[int, Field(ge=0)] = 3
    matrix: Annotated[int, Field(ge=0)] = 8
    arms: str = ""
    context_tokens: Annotated[int, Field(ge=64)] = 1024
    retrieved_texts: Count = 8
    lora_rank: Count = 4
    lora_learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    full_learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-5
    newcomers: Annotated[int, Field(ge=0)] = 16
    seal: bool = True
    histories: str = ""
    generate: Annotated[int, Field(ge=0)] = 0
    generate_tokens: Count = 48
    tune_users: Annotated[int, Field(ge=0)] = 0
    tune_factors: str = "0.3,1,3"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class Arm(ABC):
    """One arm in one worker. A worker makes it once and uses it for many cohorts.

    Attributes:
        needs: packages beyond those of every simulation; an extra of `antefix` has the name of each.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, base: FrozenBase, settings: MethodSettings) -> None:
        """Load what all users share.

        Args:
            base: the frozen base, which the arm leaves as it is.
            settings: of the run.
        """
        self.base, self.settings = base, settings

    @staticmethod
    def learning_rate(settings: MethodSettings) -> float | None:
        """The rate that the settings give; None for an arm that does not train, and is not tuned."""
        return None

    @abstractmethod
    def losses(self, users: Mapping[int, Split], shared: Prefix, rate: float = 0.0) -> dict[int, float]:
        """Measure each user alone: nothing of one user's texts may reach another's loss.

        Args:
            users: training texts to learn from, held-out texts to judge by.
            shared: the shared prefix of the last round.
            rate: learning rate; 0 for that of the settings.

        Returns:
            Nats per token of each user's held-out texts.

        Raises:
            AntefixError: it fails for some user. The caller then tries halves of the cohort, and leaves out
                only the users that fail.
        """
