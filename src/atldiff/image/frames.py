"""What is known of several frames, cut and joined along them."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import torch


class FrameRows:
    """A dataclass whose tensors have a row for each of F frames; what is no tensor holds for all of them."""

    def __getitem__(self, part: slice) -> Self:
        return type(self)(*(each[part] if _has_rows(each) else each for each in self._values()))

    def __len__(self) -> int:
        return next(len(each) for each in self._values() if _has_rows(each))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Frames that follow each other, as one."""
        columns = zip(*(part._values() for part in parts), strict=True)
        return cls(*(_joined(column) for column in columns))

    def _values(self) -> list[Any]:
        return [getattr(self, each.name) for each in fields(self)]  # pyright: ignore[reportArgumentType]


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor | FrameRows)


def _joined(column: Sequence[Any]) -> Any:
    first = column[0]
    if isinstance(first, FrameRows):
        return type(first).joined(column)
    return torch.cat(list(column)) if isinstance(first, torch.Tensor) else first
