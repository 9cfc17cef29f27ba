from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recon_node.trust import doubts_of

ONE_BEAT = [20.0, 170.0, 320.0, 470.0, 620.0, 770.0]


def doubts(scene, triggers, acquired=None):
    kspace = dataclasses.replace(
        scene.kspace,
        trigger_times_ms=None if triggers is None else tuple(triggers),
        acquisition_times_s=None if acquired is None else tuple(acquired),
    )
    found = doubts_of(kspace, scene.maps, scene.series(scene.truth), prompts=scene.prompts)
    return [said for said in found if "time stamps" in said]


@pytest.mark.parametrize(
    ("triggers", "acquired"),
    [
        pytest.param(None, None, id="no-stamps"),
        pytest.param(ONE_BEAT, None, id="one-heartbeat"),
        pytest.param(ONE_BEAT, [4.0, 4.1, 4.2, 3.1, 3.2, 3.3], id="begun-in-the-middle-of-a-beat"),
        pytest.param([20, 170, 320, 310, 470, 620], None, id="scatter"),
        pytest.param([300, 600, 900, 100, 400, 700], None, id="real-time-without-clock"),
        pytest.param([300, 600, 900, 100, 400, 700], [3.0, 3.3, 3.6, 3.9, 4.2, 4.5], id="real-time"),
        pytest.param([880, 225, 375, 525, 675, 825], None, id="first-phase-of-lines-before-the-wave"),
        pytest.param([75, 225, 375, 525, 675, 5], None, id="last-phase-of-lines-after-the-wave"),
        pytest.param([510, 500, 512, 505, 490, 520], None, id="the-same-moment-of-six-beats"),
    ],
)
def test_phases_in_the_order_of_their_stamps_are_not_doubted(scene, triggers, acquired):
    assert doubts(scene, triggers, acquired) == []


@pytest.mark.parametrize(
    "order",
    [[0, 2, 1, 3, 4, 5], [0, 1, 2, 3, 5, 4], [0, 3, 1, 2, 4, 5], [5, 0, 1, 2, 3, 4], [5, 4, 3, 2, 1, 0]],
)
def test_phases_that_are_counted_in_another_order_than_their_stamps_are_named(scene, order):
    triggers = np.take(ONE_BEAT, order)
    (said,) = doubts(scene, triggers)
    first = int(np.flatnonzero(np.diff(triggers) < 0)[0])
    assert "acquired in another order than they are counted in" in said
    assert f"phase {first + 1} lies {triggers[first]:.0f} ms after the R wave" in said
    assert doubts(scene, triggers, 3.0 + triggers / 1000) == [said]
