"""Named streams of random numbers.

`stream(study_seed, purpose, **axes)` is a function: the same words give the same
numbers, whatever the order of the calls, the block a cell runs in, the number of
cores or the machine. The purpose and the axes name what is *shared*: two cells
that ask for the same words get the same draws (common random numbers), two cells
that differ in one word get independent draws.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from sgm.arguments import shown

__all__ = ["stream", "stream_seed"]


def stream_seed(study_seed: int, purpose: str, **axes: int | str) -> int:
    """Seed in [0, 2⁶³) of a named stream, for generators that take one integer.

    Parameters
    ----------
    study_seed : int
        Seed of the whole study.
    purpose : str
        What the numbers are for, such as ``"data"`` or ``"sampler"``.
    **axes : int or str
        The axes along which draws must be independent, such as ``seed=3``.

    Returns
    -------
    int
        63-bit BLAKE2b digest of the words in canonical JSON.

    Raises
    ------
    ValueError
        If a word is neither an int nor a str: booleans and NumPy's scalars are none.
    """
    for key, word in {"study_seed": study_seed, "purpose": purpose, **axes}.items():
        # 1, 1.0 and True are one cell of a grid, but three words
        if not isinstance(word, str) and type(word) is not int:
            raise ValueError(f"{key} = {shown(word)}: must be an int or a str")
    words = json.dumps([study_seed, purpose, axes], sort_keys=True, separators=(",", ":"))
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def stream(study_seed: int, purpose: str, **axes: int | str) -> np.random.Generator:
    """NumPy generator of a named stream.

    Parameters
    ----------
    study_seed, purpose, **axes
        See `stream_seed`.

    Returns
    -------
    numpy.random.Generator
        A fresh PCG64 generator at the start of the stream.
    """
    return np.random.default_rng(stream_seed(study_seed, purpose, **axes))
