"""Exposure in stops of linear light."""

import numpy as np
import pytest

from dataset_handlers.photometry import expose, exposure_table


def linear(level):
    """IEC 61966-2-1."""
    level = np.asarray(level, np.float64) / 255
    return np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)


def test_zero_stops_are_the_identity():
    np.testing.assert_array_equal(exposure_table(0.0), np.arange(256))


@pytest.mark.parametrize("stops", np.linspace(-5, 5, 21))
def test_tables_are_monotone_and_keep_black(stops):
    table = exposure_table(float(stops)).astype(int)
    assert (np.diff(table) >= 0).all()
    assert table[0] == 0


@pytest.mark.parametrize("stops", [-3.0, -1.0, 0.5, 1.0, 2.0])
def test_a_stop_doubles_the_light(stops):
    table = exposure_table(stops)
    wanted = linear(np.arange(256)) * 2**stops
    visible = wanted <= 1
    # One level of output is at most this much light, and rounding is by half a level.
    step = linear(np.minimum(table[visible] + 0.5, 255)) - linear(np.maximum(table[visible] - 0.5, 0))
    assert (np.abs(linear(table[visible]) - wanted[visible]) <= step).all()
    assert (table[~visible] == 255).all()


def test_known_levels():
    # sRGB 128 is 0.2158605 of full light; twice that is sRGB 175.9, half of it 92.4.
    assert exposure_table(1.0)[128] == 176
    assert exposure_table(-1.0)[128] == 92


def test_every_channel_is_exposed_alike():
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    np.testing.assert_array_equal(expose(photo, 1.5), exposure_table(1.5)[photo])
