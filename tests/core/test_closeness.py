"""What is no number is close to nothing, on either side."""

from __future__ import annotations

import numpy as np
import pytest

from kind_core.closeness import MAX_DB, psnr_db


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("peak", [None, 1.0])
def test_nan_and_infinity_are_never_close(value: float, peak: float | None) -> None:
    whole = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    broken = whole.copy()
    broken[1, 2] = value
    assert psnr_db(whole, broken, peak) == -MAX_DB
    assert psnr_db(broken, whole, peak) == -MAX_DB
    assert psnr_db(broken, broken, peak) == -MAX_DB
    assert psnr_db(whole, whole, peak) == MAX_DB
