"""The keeper: even in log step, dense around events, never over its budget, and the same after a kill."""

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slt_jax import storage
from slt_jax.spectroscopy import keeping
from slt_jax.spectroscopy.keeping import Curves, Rule, add, least_useful, place
from slt_jax.storage import Keeper, keeper

#: Where the loss of ``stairs`` falls, and the scale of the fall.
FALLS = {60: 4.0, 500: 25.0, 4000: 200.0}
TREE = {"w": np.arange(2000, dtype=np.float32)}


def stairs(step):
    return 1.0 + sum(0.5 / (1 + math.exp(min((step - at) / width, 50.0))) for at, width in FALLS.items())


def events(curve, steps):
    """Steps of events of one curve, offered as a keeper takes them."""
    curves, found = Curves([], {}, {}), []
    for step in steps:
        far = not curves.places or place(step) - curves.places[-1] >= keeping.WINDOW / keeping.POINTS
        if far and add(curves, step, {"all": curve(step)}, Rule()):
            found.append(step)
    return np.array(found)


def noise(seed, correlation, steps):
    """Stationary noise of variance 1 by step."""
    random, value, table = np.random.default_rng(seed), 0.0, {}
    for step in steps:
        value = correlation * value + math.sqrt(1 - correlation**2) * random.normal()
        table[step] = value
    return table


def offered(folder, budget, steps=range(0, 8000, 3), tree=TREE, **settings):
    one = Keeper(folder, budget, **settings)
    for step in steps:
        one.offer(step, tree, {"all": stairs(step)})
    return one


@pytest.fixture
def unwritten(monkeypatch):
    """Checkpoints as empty folders of one size: what is kept is looked at, not how it is written."""

    def save(folder, trees):
        for step in trees:
            (folder / str(step)).mkdir()

    monkeypatch.setattr(keeper, "save_checkpoints", save)
    monkeypatch.setattr(keeper, "_size", lambda path: 10_000)


@pytest.mark.parametrize("size", [0.0, 0.01])
def test_there_are_events_at_every_fall_and_nowhere_else(size):
    steps = range(0, 8000, 3)
    added = noise(0, 0.0, steps)
    found = events(lambda step: stairs(step) + size * added[step], steps)
    for at in FALLS:
        assert (np.abs(np.log(found / at)) < 0.15).any(), at
    far = [step for step in found if min(abs(math.log(step / at)) for at in FALLS) > 0.45]
    assert far == []


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_noise_about_a_level_and_an_even_fall_have_next_to_no_events(correlation):
    steps, shares = range(0, 8000, 5), []
    for seed in range(10):
        added = noise(seed, correlation, steps)
        shares.append(len(events(lambda step, added=added: 2 + 0.05 * added[step], steps)) / len(steps))
    assert np.mean(shares) < 0.01
    assert events(lambda step: 9 - place(step), steps).size == 0
    # the same noise in a curve that also falls is no reason to miss the fall
    fallen = events(lambda step: stairs(step) + 0.02 * added[step], steps)
    assert (np.abs(np.log(fallen / 500)) < 0.15).any()


def test_without_events_checkpoints_are_even_in_log_step_whatever_is_offered(tmp_path, unwritten):
    one = Keeper(tmp_path, 10**9, per_decade=4)
    for step in range(20_000):
        one.offer(step, TREE, {"all": 1.0})
    # 0 itself, and the first step of each quarter of a decade, to the thousandth at which offers are passed over
    expected = [0, *(math.ceil(10 ** (k / 4) - 1) for k in range(1, 18))]
    np.testing.assert_allclose(np.log1p(one.steps), np.log1p(expected), atol=0.002)
    assert one.events == []


def test_checkpoints_are_denser_around_events(tmp_path, unwritten):
    one = offered(tmp_path, 10**9)
    places = np.log10(1 + np.array(one.steps))

    def density(low, high):
        return int(((places >= np.log10(low)) & (places < np.log10(high))).sum()) / np.log10(high / low)

    assert density(430, 580) > 25
    assert density(3500, 4600) > 25
    assert density(900, 2500) == pytest.approx(8, abs=2.5)
    assert density(120, 300) == pytest.approx(8, abs=2.5)


def test_the_budget_is_never_exceeded_and_events_and_ends_survive_the_thinning(tmp_path, unwritten):
    found = {}
    for name, dense in (("events", 50), ("none", 8)):
        one = Keeper(tmp_path / name, 200_000, per_decade_in_events=dense)
        for step in range(0, 8000, 3):
            one.offer(step, TREE, {"all": stairs(step)})
            assert len(one.steps) * 10_000 <= 200_000
        assert one.steps[0] == 0
        assert len(one.steps) == 20
        assert storage.find_checkpoints(tmp_path / name).keys() == set(one.steps)
        found[name] = sum(abs(math.log((step + 1) / at)) < 0.25 for step in one.steps for at in (500, 4000))
    assert found["events"] >= 2 * found["none"]


def test_the_least_useful_is_the_closest_to_its_neighbours_and_never_an_end():
    assert least_useful([1, 10, 11, 100], [], Rule()) == 10
    assert least_useful([1, 10, 11, 100], [10], Rule()) == 10
    assert least_useful([1, 2, 4, 8, 100, 104, 108, 900], [], Rule()) == 104
    # near an event distances count for more
    assert least_useful([1, 10, 12, 100, 112, 126, 900], [], Rule()) == 112
    assert least_useful([1, 10, 12, 14, 100, 125, 145, 900], [125], Rule(8, 500)) == 12
    assert least_useful([1, 10], [], Rule()) is None


def killed_at(number, folder, monkeypatch, tree):
    """A keeper whose process dies at the n-th rename; whatever was written is left as it is."""
    left = [number]
    replace = os.replace

    def dying(source, target):
        left[0] -= 1
        if left[0] == 0:
            raise InterruptedError
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        try:
            offered(folder, 60_000, range(0, 200), tree)
        except InterruptedError:
            return True
    return False


@pytest.mark.parametrize("number", [1, 3, 8])
def test_a_keeper_killed_anywhere_goes_on_to_the_same_checkpoints(tmp_path, monkeypatch, number):
    tree = {"w": np.arange(100, dtype=np.float32)}
    quiet = offered(tmp_path / "quiet", 60_000, range(0, 200), tree)
    assert killed_at(number, tmp_path / "killed", monkeypatch, tree)
    # a line that was cut short was never answered
    with (tmp_path / "killed" / keeper.OFFERS).open("a") as log:
        log.write('{"step": 3, "loss')
    begin = 0 if (found := Keeper(tmp_path / "killed", 60_000).latest(tree)) is None else found[0]
    again = offered(tmp_path / "killed", 60_000, range(begin, 200), tree)
    assert again.steps == quiet.steps
    assert again.events == quiet.events
    logs = [(tmp_path / name / keeper.OFFERS).read_text() for name in ("quiet", "killed")]
    assert logs[0] == logs[1]
    left = [entry.name for entry in (tmp_path / "killed").iterdir() if not entry.name.isdigit()]
    assert left == [keeper.OFFERS]
    step, params = again.latest(tree)
    assert step == again.steps[-1]
    np.testing.assert_array_equal(params["w"], tree["w"])


def test_a_reader_sees_whole_checkpoints_only(tmp_path, monkeypatch):
    seen = []

    def looking(source, target):
        seen.append({step: storage.is_complete(path) for step, path in storage.find_checkpoints(tmp_path).items()})
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", looking)
    one = offered(tmp_path, 60_000, range(40), {"w": np.zeros(100, np.float32)})
    assert len(seen) > len(one.steps)
    assert all(all(look.values()) for look in seen)
    # an empty folder of that name would have been noticed
    (tmp_path / "77").mkdir()
    assert not storage.is_complete(tmp_path / "77")


def test_what_a_keeper_wrote_is_found_by_a_scan(tmp_path):
    state = {"params": {"w": jnp.arange(3.0)}, "moments": {"w": jnp.zeros(3)}}
    one = Keeper(tmp_path, 10**6)
    assert one.offer(jnp.int32(5), state, keep=True)
    (found,) = storage.checkpoints_in(tmp_path, {"w": jnp.zeros(3)})
    assert found.step == 5
    np.testing.assert_array_equal(found.load()["w"], [0.0, 1.0, 2.0])
    step, whole = one.latest(state)
    assert (step, sorted(whole)) == (5, ["moments", "params"])


def test_bad_input_is_told_what_to_do(tmp_path):
    one = Keeper(tmp_path / "run", 10**6)
    one.offer(3, TREE, {"all": 1.0})
    with pytest.raises(ValueError, match=r"step: got 3; the one before was 3\. Offer steps in increasing order"):
        one.offer(3, TREE, {"all": 1.0})
    with pytest.raises(ValueError, match="step: got -1"):
        Keeper(tmp_path / "below", 10**6).offer(-1, TREE)
    with pytest.raises(ValueError, match=r"step: got 4\.5; it is a whole number"):
        one.offer(4.5, TREE, {"all": 1.0})
    with pytest.raises(ValueError, match="params: leaf 'key' is a typed key"):
        Keeper(tmp_path / "keys", 10**6).offer(0, {"key": jax.random.key(0)})
    with pytest.raises(ValueError, match=r"losses: got \['other'\] after \['all'\]"):
        one.offer(4, TREE, {"other": 1.0})
    with pytest.raises(ValueError, match=r"losses: 'all' has shape \(2,\); offer its mean"):
        one.offer(5, TREE, {"all": np.ones(2)})
    with pytest.raises(ValueError, match="budget: got 1000 bytes, and one checkpoint takes 8000"):
        Keeper(tmp_path / "small", 1000).offer(0, TREE)
    with pytest.raises(ValueError, match="budget: got 9000 bytes, and one checkpoint takes"):
        Keeper(tmp_path / "tight", 9000).offer(0, TREE)
    assert storage.find_checkpoints(tmp_path / "tight") == {}
    for settings, message in (
        ({"budget": 0}, "budget: got 0"),
        ({"budget": 10, "per_decade": 0}, "per_decade: got 0"),
        ({"budget": 10, "speed": 0.0}, "speed: got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Keeper(tmp_path / "other", **settings)
    storage.save_checkpoints(tmp_path / "mine", {1: TREE})
    with pytest.raises(ValueError, match="holds checkpoints that no keeper wrote"):
        Keeper(tmp_path / "mine", 10**6)
    assert storage.find_checkpoints(tmp_path / "mine").keys() == {1}
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        Keeper(tmp_path / "file", 10**6)
    (tmp_path / "run" / keeper.OFFERS).write_text(json.dumps({"step": 3}) + "\n")
    with pytest.raises(ValueError, match="line 1: is no offer"):
        Keeper(tmp_path / "run", 10**6)
