"""Data that have been published with their answers give those answers."""

from pathlib import Path

import pandas as pd
import pytest

from harness.analysis.arrays import Floats
from harness.analysis.location import find_means, find_p_values, find_shifts, flip_signs
from harness.analysis.statistics import correct_holm
from tests.unit.test_statistics import number

FOLDER = Path(__file__).parent / "published"


def read(name: str) -> pd.DataFrame:
    return pd.read_csv(FOLDER / f"{name}.csv", comment="#")


def differences(name: str) -> Floats:
    frame = read(name)
    return (frame["second"] - frame["first"]).to_numpy()


def test_the_depression_data_have_their_shift_and_interval() -> None:
    """R: `wilcox.test(first, second, paired = TRUE, conf.int = TRUE)`, as Hollander and Wolfe."""
    shift, low, high = find_shifts(*number(differences("depression")[None]))
    assert shift[0] == pytest.approx(-0.46)
    assert (low[0], high[0]) == (pytest.approx(-0.786), pytest.approx(-0.010))


def test_students_sleep_data_have_his_t_and_p() -> None:
    """Mean difference 1.58 hours, t = 4.0621 with 9 degrees of freedom, p = 0.002833."""
    found = find_means(*number(differences("sleep")[None]))
    assert found.mean[0] == pytest.approx(1.58)
    assert found.mean[0] / found.error[0] == pytest.approx(4.0621, abs=5e-5)
    assert found.freedom[0] == 9
    assert find_p_values(found)[0] == pytest.approx(0.002833, abs=5e-7)


def test_darwins_maize_has_fishers_t_and_randomisation() -> None:
    """Fisher: t = 2.148; of the 2^15 sign flips, 1726 have a sum as far from 0 as 314."""
    values = read("darwin")["difference"].to_numpy(dtype=float)
    assert values.sum() == 314
    found = find_means(*number(values[None]))
    assert found.mean[0] / found.error[0] == pytest.approx(2.148, abs=5e-4)
    assert find_p_values(found)[0] == pytest.approx(0.0497, abs=5e-5)
    assert flip_signs(*number(values[None]), 1)[0] == pytest.approx(1726 / 2**15, abs=1e-12)


def test_holms_correction_of_a_published_example() -> None:
    frame = read("holm")
    assert correct_holm(frame["plain"].to_numpy()) == pytest.approx(frame["corrected"].to_numpy())
