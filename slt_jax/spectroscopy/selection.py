"""Which restrictions a scan takes: by name, by pattern, or all heads, layers or blocks that a network has."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from slt_jax import restriction as restrictions
from slt_jax.restriction import Restriction
from slt_jax.spectroscopy.subject import WHOLE_NETWORK, Subject
from slt_jax.types import PyTree

#: Restrictions that are found in the parameters themselves.
GROUPS: Mapping[str, Callable[[PyTree], dict[str, Restriction]]] = {
    "heads": restrictions.heads,
    "layers": restrictions.layers,
    "blocks": restrictions.blocks,
}


def select_restrictions(subject: Subject, names: Iterable[str] | None) -> tuple[Subject, list[str]]:
    """The subject with every restriction that is asked for, and their names in order.

    Args:
      subject: With restrictions of its own.
      names: Each the name of one of these, ``"full"``, ``"heads"``, ``"layers"`` or ``"blocks"`` for all that the
        parameters have of them, or a pattern such as ``"head 0.*"``. ``None`` for all of the subject's own.

    Returns:
      The subject, to whose restrictions those that were found are added, and the names of those asked for.

    Raises:
      ValueError: a name is not known and no pattern of one; a network has no heads or blocks, or they cannot be told.

    >>> import jax.numpy as jnp
    >>> from slt_jax import Problem
    >>> params = {"blocks": [{"w": jnp.zeros(2)}, {"w": jnp.zeros(2)}]}
    >>> subject = Subject(Problem(lambda w, x: x, params, jnp.zeros(3)))
    >>> select_restrictions(subject, ["full", "blocks"])[1]
    ['full', 'block 0', 'block 1']
    """
    if names is None:
        return subject, [WHOLE_NETWORK, *subject.restrictions]
    known: dict[str, Restriction] = dict(subject.restrictions)
    chosen: dict[str, None] = {}
    for name in (name.strip() for name in names):
        if name in known or name == WHOLE_NETWORK:
            found = [name]
        elif name in GROUPS:
            group = _group(name, subject.problem.params)
            # a restriction of the subject's own keeps its name
            known = {**group, **known}
            found = list(group)
        else:
            found = [other for other in [WHOLE_NETWORK, *known] if fnmatchcase(other, name)] or _in_groups(
                subject, known, name
            )
        chosen |= dict.fromkeys(found)
    return subject._replace(restrictions=known), list(chosen)


def _group(name: str, params: PyTree) -> dict[str, Restriction]:
    try:
        return GROUPS[name](params)
    except ValueError as error:
        raise ValueError(
            f"restrictions: {name!r} cannot be found: {error} What has to be said besides, as num_heads, is said where "
            f"the subject is made: its restrictions may be slt_jax.restriction.{name}(params, ...)."
        ) from error


def _in_groups(subject: Subject, known: dict[str, Restriction], pattern: str) -> list[str]:
    """Names in the groups that match a pattern such as ``head 0.*``; their restrictions become known."""
    members: dict[str, Restriction] = {}
    for group in GROUPS:
        # "head 0.*" is of the heads, and what keeps them from being found is the answer
        if pattern.startswith(f"{group[:-1]} "):
            members = _group(group, subject.problem.params)
        found = [name for name in members if fnmatchcase(name, pattern)]
        if found:
            known.update({name: members[name] for name in found})
            return found
    raise ValueError(
        f"restrictions: got {pattern!r}; there are {[WHOLE_NETWORK, *known, *members]}, and 'heads', 'layers', "
        "'blocks' stand for all that its parameters have of them."
    )
