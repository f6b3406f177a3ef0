"""Numbers of a problem as they are given: whole ones of int32."""

from __future__ import annotations

from typing import Any

import numpy as np

from qevo.core.space import INT32
from qevo.errors import QevoError


def integers(what: str, values: Any) -> np.ndarray:
    """Values in their shape; floats of whole value pass.

    Each fits int32, and they come as int64, in which sums of fewer than 2**31 of them are exact.

    Raises:
      QevoError: one of them is no whole number or leaves int32; ``what`` names them.
    """
    try:
        given = np.asarray(values)
        if given.dtype.kind in "cSUmM":
            raise TypeError(f"got {given.dtype}")
        with np.errstate(invalid="ignore"):
            whole = given.astype(np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise QevoError(f"{what} must be whole and fit int32: {error}") from None
    odd = ((whole != given) | (whole < INT32.min) | (whole > INT32.max)).ravel()
    if odd.any():
        at = int(np.argmax(odd))
        place = f" in place {at}" if given.ndim else ""
        raise QevoError(
            f"{what} must be whole and fit int32, got {given.ravel()[at]}{place}: round or scale"
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
