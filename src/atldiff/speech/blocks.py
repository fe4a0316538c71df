"""Sound that comes in blocks of any size, cut anew."""

from collections.abc import Iterable, Iterator

import numpy as np


def regrouped(blocks: Iterable[np.ndarray], least: int, step: int = 1) -> Iterator[np.ndarray]:
    """(..., n) blocks → the same samples in blocks of at least ``least`` samples, of whole steps, but for the last.

    Args:
        step: samples, at most ``least``.
    """
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += block.shape[-1]
        if count >= least:
            joined = np.concatenate(held, axis=-1)
            whole = count // step * step
            yield joined[..., :whole]
            held, count = [joined[..., whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=-1)
