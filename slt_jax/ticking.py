"""How far a compiled loop is, told from inside it to whoever listens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from slt_jax.types import Array, PyTree

#: ``listener(done, total)``, in gradients of each chain.
Listener = Callable[[int, int], None]

#: Ticks of a loop at most, and entries that it moves from one to the next at least: a tick takes 0.7 ms of CPU where
#: all that Python needs has left the caches, 0.1 ms where it has not, and so many entries take about 150 ms.
MOST, LEAST_WORK = 20, 2**25

# the runtime calls from threads of its own, so that a variable of the context would not be seen there
_lock = threading.RLock()
_stack: list["_Heard"] = []


class _Heard:
    """A listener, and what it raised: that is kept until the program has come to its end."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.raised: BaseException | None = None

    def __call__(self, done: int, total: int) -> None:
        if self.raised is None:
            try:
                self.listener(done, total)
            except BaseException as error:  # noqa: BLE001  raised here, whatever it is would be an error of the runtime
                self.raised = error

    def answer(self) -> None:
        raised, self.raised = self.raised, None
        if raised is not None:
            raise raised


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear how far the loops are that run meanwhile: those with ``tick=True``, and on the host every stage of ``llc``.

    Nothing is compiled anew because somebody listens, or stops to. Loops under the user's own ``vmap`` tick once for
    all lanes, chains on many devices once for all of them, and of many processes the first alone.

    Args:
      listener: ``listener(done, total)``, gradients of each chain. It is called from threads of the runtime, one call
        at a time. What it raises does not break the run: it is kept, the listener hears no more, and it is raised as
        soon as the program has ended: for ``llc`` on the host after the stage, a tenth of a first block.

    Not to be believed where two threads run loops at a time: both are heard, by the innermost listener of any thread.

    >>> import jax, jax.numpy as jnp
    >>> import slt_jax as slt
    >>> heard = []
    >>> posterior = slt.localise(lambda w, x: (x @ w) ** 2, jnp.zeros(3), jnp.ones((20, 3)))
    >>> with listening(lambda done, total: heard.append((done, total))):
    ...     _ = slt.sample(jax.random.key(0), slt.samplers.sgld(1e-3), posterior, jnp.ones((20, 3)), draws=9, tick=True)
    >>> heard  # so little work that nothing is told from inside
    []
    """
    heard = _Heard(listener)
    with _lock:
        _stack.append(heard)
    try:
        yield
        jax.effects_barrier()
    finally:
        with _lock:
            _stack.remove(heard)
    heard.answer()


@contextmanager
def part(before: int, size: int, total: int) -> Iterator[None]:
    """What is run meanwhile is ``size`` of a whole of ``total``, of which so much is done ``before``; told at the end.

    What the listener has raised by then is raised here.

    >>> with listening(lambda done, total: print(done, total)), part(100, 50, 200):
    ...     tell(1, 2)
    125 200
    150 200
    """
    with _lock:
        outer = _stack[-1] if _stack else None
    if outer is None:
        yield
        return
    with listening(lambda done, whole: outer(before + size * done // whole, total)):
        yield
    outer(before + size, total)
    outer.answer()


def tell(done: Array | int, total: Array | int) -> None:
    """The innermost listener, if there is one, is told."""
    with _lock:
        if _stack:
            _stack[-1](int(done), int(total))


def ticks(windows: int, work: int) -> int:
    """How often a loop tells that has so many turns, each of which moves ``work`` entries: a divisor of the turns.

    >>> ticks(400, 10**7), ticks(400, 10**6), ticks(400, 10**4), ticks(401, 10**7)
    (20, 10, 1, 1)
    """
    most = max(1, min(MOST, windows * work // LEAST_WORK))
    return next(count for count in range(most, 0, -1) if windows % count == 0)


def scan(body: Callable, carry: PyTree, inputs: PyTree, *, windows: int, thin: int, work: int) -> tuple[PyTree, PyTree]:
    """``jax.lax.scan`` in as many pieces as there are ticks: after each it is told how much is done.

    The loop inside is left as it is, so that nothing happens between one turn and the next but now and then a call.

    Args:
      body, carry, inputs: As for ``jax.lax.scan``.
      windows: Turns of the loop.
      thin: Gradients of each chain in a turn.
      work: Entries that a turn moves.
    """
    pieces = ticks(windows, work)
    if pieces == 1:
        return jax.lax.scan(body, carry, inputs)  # not worth a callback in the program
    size = windows // pieces

    def piece(carry: PyTree, now: tuple[Array, PyTree]) -> tuple[PyTree, PyTree]:
        number, inputs = now
        carry, outputs = jax.lax.scan(body, carry, inputs)
        # told when the turns are done, not before
        number, carry = jax.lax.optimization_barrier((number, carry))
        jax.debug.callback(tell, (number + 1) * (size * thin), jnp.int32(windows * thin))
        return carry, outputs

    cut = jax.tree.map(lambda leaf: leaf.reshape(pieces, size, *leaf.shape[1:]), inputs)
    carry, outputs = jax.lax.scan(piece, carry, (jnp.arange(pieces), cut))
    return carry, jax.tree.map(lambda leaf: leaf.reshape(windows, *leaf.shape[2:]), outputs)
