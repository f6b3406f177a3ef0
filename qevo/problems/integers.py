"""Numbers of a problem as they are given: whole ones, in int64."""

from __future__ import annotations

from typing import Any

import numpy as np

from qevo.errors import QevoError


def integers(what: str, values: Any) -> np.ndarray:
    """Values as int64, in their shape; floats of whole value pass.

    Raises:
      QevoError: one of them is no whole number that int64 holds; ``what`` names them.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind in "cSUmM":
            raise TypeError(f"they are {given.dtype}")
        with np.errstate(invalid="ignore"):
            whole = given.astype(np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise QevoError(f"{what} must be integers that fit 64 bits: {error}") from None
    odd = (whole != given).ravel()
    if given.dtype.kind == "f":
        odd |= np.abs(given).ravel() >= 2.0**63  # where a cast stops at the largest int64
    if odd.any():
        at = int(np.argmax(odd))
        place = f" in place {at}" if given.ndim else ""
        raise QevoError(
            f"{what} must be integers that fit 64 bits, got {given.ravel()[at]}{place}: round or "
            "scale them"
        )
    return whole


def integer(what: str, value: Any) -> int:
    """One value as an int.

    Raises:
      QevoError: as `integers`, or there are several.
    """
    whole = integers(what, value)
    if whole.ndim:
        raise QevoError(f"{what} must be one integer, got an array of shape {list(whole.shape)}")
    return int(whole)
