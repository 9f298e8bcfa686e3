"""Many temperatures at once: the flow of λ, the density of states, and what thermodynamics makes of them."""

from slt_jax.ladder.competition import Competition as Competition
from slt_jax.ladder.competition import Phase as Phase
from slt_jax.ladder.competition import compete as compete
from slt_jax.ladder.criteria import InformationCriterion as InformationCriterion
from slt_jax.ladder.criteria import waic as waic
from slt_jax.ladder.density import DensityOfStates as DensityOfStates
from slt_jax.ladder.density import density_of_states as density_of_states
from slt_jax.ladder.exponent import Candidate as Candidate
from slt_jax.ladder.exponent import Exponent as Exponent
from slt_jax.ladder.exponent import fit_exponent as fit_exponent
from slt_jax.ladder.flow import flow as flow
from slt_jax.ladder.plateaus import Course as Course
from slt_jax.ladder.plateaus import Crossover as Crossover
from slt_jax.ladder.plateaus import Plateau as Plateau
from slt_jax.ladder.plateaus import plateaus as plateaus
from slt_jax.ladder.reading import Flow as Flow
from slt_jax.ladder.reweighting import mbar as mbar
from slt_jax.ladder.samples import DeepSamples as DeepSamples
from slt_jax.ladder.samples import deep_samples as deep_samples
from slt_jax.ladder.splitting import Splitting as Splitting
from slt_jax.ladder.splitting import splitting as splitting
from slt_jax.ladder.thermodynamics import FreeEnergy as FreeEnergy
from slt_jax.ladder.thermodynamics import free_energy as free_energy
from slt_jax.ladder.thermodynamics import heat_capacity as heat_capacity
from slt_jax.ladder.thermodynamics import wbic as wbic
