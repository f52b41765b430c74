"""What of a table of texts is what: which columns, which rows, and users for a table that has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Columns"]


class Columns(BaseModel):
    """How to read a source.

    Attributes:
        where: `COLUMN=VALUE`: rows that have it; empty for all.
        subset, split: of a set of the Hugging Face hub.
        user_column, text_column, prompt_column, time_column: names; empty for the usual ones.
        partition: makes users of a set without: `iid` (alike), `dirichlet` (shares of each label differ),
            `pathological` (few labels each); `none` where rows have users.
        partitions: users that it makes.
        partition_by: column of the labels.
        partition_alpha: of the Dirichlet distribution; the smaller, the more users differ.
        partition_labels: of each user, where it is pathological.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str = ""
    subset: str = ""
    split: str = "train"
    user_column: str = ""
    text_column: str = ""
    prompt_column: str = ""
    time_column: str = ""
    partition: Literal["none", "iid", "dirichlet", "pathological"] = "none"
    partitions: int = Field(default=10, ge=1)
    partition_by: str = ""
    partition_alpha: float = Field(default=0.5, gt=0)
    partition_labels: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _require_columns(self) -> Self:
        if self.where and not self.where.partition("=")[1]:
            raise ValueError(f"where is COLUMN=VALUE, got {self.where!r:.60}")
        if self.partition in ("dirichlet", "pathological") and not self.partition_by:
            raise ValueError(f"partition = {self.partition} needs partition-by, the column of the labels")
        return self

    def takes(self, row: Mapping[str, Any]) -> bool:
        """Whether `where` is true of a row."""
        column, _, value = self.where.partition("=")
        return not self.where or str(row.get(column)) == value
