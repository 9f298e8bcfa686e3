"""A process that compiles many programs does not run out of memory maps."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from slt_jax.compiled import make_room


def counted(tmp_path, used, allowed):
    maps, limit = tmp_path / "maps", tmp_path / "limit"
    maps.write_text("a line\n" * used)
    limit.write_text(f"{allowed}\n")
    return maps, limit


@pytest.mark.parametrize(("used", "given_up"), [(60, True), (40, False)])
def test_programs_are_given_up_only_when_maps_run_short(tmp_path, used, given_up):
    traces = []

    @jax.jit
    def program(x):
        traces.append(x)
        return 2 * x

    program(jnp.ones(3))
    assert make_room(*counted(tmp_path, used, 100)) is given_up
    program(jnp.ones(3))
    assert len(traces) == 1 + given_up


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no list of maps on this system")
def test_giving_up_programs_gives_back_their_maps(tmp_path):
    def used():
        return len(Path("/proc/self/maps").read_text().splitlines())

    for size in range(1, 40):
        jax.jit(lambda x: jnp.fft.fft(jnp.sort(x)) @ x)(jnp.ones(size))
    before = used()
    assert make_room(*counted(tmp_path, 60, 100))
    assert used() < before - 39
