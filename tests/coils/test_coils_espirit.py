import numpy as np
import pytest

from recon_node.coils import espirit
from recon_node.core.errors import CalibrationError


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_a_calibration_that_is_not_finite_is_refused(spoiled: float) -> None:
    calibration = np.ones((4, 12, 12), np.complex64)
    calibration[1, 3, 3] = spoiled
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        espirit(calibration, (64, 64))


def test_a_calibration_of_zeros_is_refused() -> None:
    with pytest.raises(CalibrationError, match="zero everywhere"):
        espirit(np.zeros((4, 12, 12), np.complex64), (64, 64))


def test_a_calibration_smaller_than_the_kernel_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"5 x 24.*smaller than the 6 x 6"):
        espirit(np.ones((4, 5, 24), np.complex64), (64, 64))
