"""Programs as points of a space of codes: Turing machines, their exact runs and their smooth relaxation."""

from slt_jax.programs.examples import (
    binary_increment,
    brackets,
    detect_a,
    detect_a_overwriting,
    detect_a_running,
    palindrome,
    parity,
)
from slt_jax.programs.interpreter import Run, check, run, trace
from slt_jax.programs.program import MOVES, Program, dimension, parse, render
from slt_jax.programs.simplex import (
    code_from_logits,
    log_uniform,
    logits_like,
    logits_of,
    nearest_program,
    uniform_codes,
)
from slt_jax.programs.staged import staged_run, staged_step
from slt_jax.programs.synthesis import (
    code_near,
    idle_program,
    log_uniform_near,
    neighbourhood_problem,
    posterior_at,
    synthesis_problem,
)
from slt_jax.programs.turing import (
    Code,
    code_from_errors,
    code_of,
    smooth_run,
    smooth_step,
    tapes_of,
    turing_problem,
)

__all__ = [
    "MOVES",
    "Code",
    "Program",
    "Run",
    "binary_increment",
    "brackets",
    "check",
    "code_from_errors",
    "code_from_logits",
    "code_near",
    "code_of",
    "detect_a",
    "detect_a_overwriting",
    "detect_a_running",
    "dimension",
    "idle_program",
    "log_uniform",
    "log_uniform_near",
    "logits_like",
    "logits_of",
    "nearest_program",
    "neighbourhood_problem",
    "palindrome",
    "parity",
    "parse",
    "posterior_at",
    "render",
    "run",
    "smooth_run",
    "smooth_step",
    "staged_run",
    "staged_step",
    "synthesis_problem",
    "tapes_of",
    "trace",
    "turing_problem",
    "uniform_codes",
]
