"""Programs from examples: the posterior over codes sampled, searched, sorted, and weighed program against program."""

from slt_jax.synthesis.competition import Odds, odds
from slt_jax.synthesis.families import Family, families
from slt_jax.synthesis.local import LocalFlow, local_flow
from slt_jax.synthesis.search import Search, search, solves

__all__ = ["Family", "LocalFlow", "Odds", "Search", "families", "local_flow", "odds", "search", "solves"]
