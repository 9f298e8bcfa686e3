"""Compiled loops tell how far they are, to whoever listens, and nobody who listens can change or break them."""

import jax
import pytest
from laws import BASELINE, ORIGIN, assert_same, compilations, quadratic

import slt_jax as slt
from slt_jax import progress, ticking

POSTERIOR = slt.localise(quadratic, ORIGIN, BASELINE, nbeta=1000.0)
SAMPLER = slt.samplers.sgld(1e-5)


@pytest.fixture(scope="module")
def chatty():
    """Loops of so little work tell all the same; programs that were compiled without are not used again."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticking, "LEAST_WORK", 1)
        yield
    jax.clear_caches()


def run(tick=True, key=0, **settings):
    given = {"draws": 90, "burnin": 10, "chains": 2} | settings
    return slt.sample(jax.random.key(key), SAMPLER, POSTERIOR, BASELINE, tick=tick, **given)


def heard(function):
    told = []
    with ticking.listening(lambda done, total: told.append((done, total))):
        function()
    return told


def test_a_loop_tells_twenty_times_how_far_it_is_and_draws_the_same(chatty):
    traces = []
    told = heard(lambda: traces.append(run()))
    assert sorted(told) == [(5 * number, 100) for number in range(1, 21)]
    assert_same(traces[0], run(tick=False))
    assert heard(lambda: run(tick=False)) == []
    assert max(done for done, _ in heard(lambda: run(draws=97, thin=3, burnin=9))) == 3 * 100


def test_whether_somebody_listens_compiles_nothing(chatty):
    run()
    with compilations() as seen:
        assert len(heard(run)) == 20
        run()
    assert seen == []
    with compilations() as seen:
        run(draws=91)
    assert seen != []


def test_lanes_and_devices_tell_once(chatty):
    lanes = jax.jit(jax.vmap(lambda key: slt.sample(key, SAMPLER, POSTERIOR, BASELINE, draws=100, chains=2, tick=True)))
    told = heard(lambda: jax.block_until_ready(lanes(jax.random.split(jax.random.key(0), 3))))
    assert sorted(told) == [(5 * number, 100) for number in range(1, 21)]
    alone = run(chains=8, tick=False)
    with jax.set_mesh(slt.sharding.mesh()):
        spread = []
        told = heard(lambda: spread.append(run(chains=8)))
    assert len(told) == 20
    assert len(spread[0].excess.sharding.device_set) == 8
    assert_same(spread[0], alone)


def test_what_a_listener_raises_breaks_no_run_and_is_raised_when_the_run_has_ended(chatty):
    ran, told = [], []

    def listener(done, total):
        told.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ticking.listening(listener):
        ran.append(jax.block_until_ready(run()))
    assert len(told) == 1
    assert_same(ran[0], run(tick=False))
    # and nothing is left of it
    assert len(heard(run)) == 20


def reading():
    settings = dict(nbeta=1000.0, chains=2, draws=100, burnin=100, polish=False, tick=True)
    return slt.llc(jax.random.key(0), quadratic, ORIGIN, BASELINE, **settings)


def test_a_reading_stops_at_the_end_of_the_stage_in_which_its_listener_raised(chatty):
    told = []

    def listener(done, total):
        told.append((done, total))
        if done >= 45:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ticking.listening(listener):
        reading()
    assert told[-1] == (45, 200)
    # a stage has 20 gradients: each is told from inside, as a part of the whole, and its end by the host too
    expected = [(done, 200) for done in range(1, 201)] + [(20 * stage, 200) for stage in range(1, 11)]
    assert sorted(heard(reading)) == sorted(expected)


def test_the_innermost_listener_hears_a_part_and_a_part_is_told_to_the_outer_one():
    told = []
    with ticking.listening(lambda done, total: told.append((done, total))):
        with ticking.part(10, 20, 40), ticking.part(10, 10, 20):
            ticking.tell(1, 2)
        with ticking.listening(lambda done, total: None):
            ticking.tell(1, 1)
    ticking.tell(3, 4)
    assert told == [(25, 40), (30, 40), (30, 40)]


def test_a_loop_of_little_work_has_no_callback_in_it(monkeypatch):
    def program(draws):
        traced = jax.make_jaxpr(lambda key: slt.sample(key, SAMPLER, POSTERIOR, BASELINE, draws=draws, tick=True))
        return str(traced(jax.random.key(0)))

    monkeypatch.setattr(ticking, "LEAST_WORK", 2**25)
    assert "debug_callback" not in program(101)
    monkeypatch.setattr(ticking, "LEAST_WORK", 1)
    assert "debug_callback" in program(102)


def test_work_decides_how_often_a_loop_tells(monkeypatch):
    monkeypatch.setattr(ticking, "LEAST_WORK", 2**20)
    assert [ticking.ticks(1024, 2**power) for power in (30, 14, 13, 12, 1)] == [16, 16, 8, 4, 1]
    # a divisor, so that every piece is as long and one program serves them
    assert [ticking.ticks(windows, 10**9) for windows in (7, 400, 401, 22)] == [7, 20, 1, 11]


def test_a_log_is_told_once_how_long_the_rest_will_take(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.shown() as report:
        for done, at in ((0, 0.0), (3, 0.1), (4, 120.1), (5, 240.1)):
            now[0] = at
            report("Measuring", done, 10, "a place")
    told = [line for line in capsys.readouterr().err.splitlines() if "about" in line]
    # three were there already: the fourth took two minutes, and six are left
    assert told == ["Measuring: 4 of 10; about 12 min for the others, as this one took."]
