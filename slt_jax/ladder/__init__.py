"""Many temperatures at once: the flow of λ, the density of states, and what thermodynamics makes of them."""

from slt_jax.ladder.density import DensityOfStates as DensityOfStates
from slt_jax.ladder.density import density_of_states as density_of_states
from slt_jax.ladder.exponent import Candidate as Candidate
from slt_jax.ladder.exponent import Exponent as Exponent
from slt_jax.ladder.exponent import fit_exponent as fit_exponent
from slt_jax.ladder.flow import Flow as Flow
from slt_jax.ladder.flow import flow as flow
from slt_jax.ladder.reweighting import mbar as mbar
