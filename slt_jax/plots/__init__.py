"""Pictures of a study, as SVG text: training, readings, chains, many temperatures, and where transitions live."""

from slt_jax.plots.alignment import Changed, Learned, alignment
from slt_jax.plots.architecture import HeadMap, head_maps
from slt_jax.plots.constructions import GraphNode, construction_graph
from slt_jax.plots.dynamics import dynamics, norms
from slt_jax.plots.flows import FlowLine, flow_curves
from slt_jax.plots.flows import kept as kept_lines
from slt_jax.plots.free_energies import PhaseEnergy, Turn, free_energies
from slt_jax.plots.localities import ShareCurve, SharePanel, shares
from slt_jax.plots.machines import MachineRun, OddsLine, machine_runs, odds_lines
from slt_jax.plots.spectra import ExactMark, Series, small_spectra, spectrum, spectrum_map
from slt_jax.plots.spectrogram import Spectrum, spectrogram
from slt_jax.plots.style import Bands, StepAxis, colors, step_axis
from slt_jax.plots.traces import ChainTrace, chain_traces
from slt_jax.plots.training import training

__all__ = [
    "Bands",
    "ChainTrace",
    "Changed",
    "ExactMark",
    "FlowLine",
    "GraphNode",
    "HeadMap",
    "Learned",
    "MachineRun",
    "OddsLine",
    "PhaseEnergy",
    "Series",
    "ShareCurve",
    "SharePanel",
    "Spectrum",
    "StepAxis",
    "Turn",
    "alignment",
    "chain_traces",
    "colors",
    "construction_graph",
    "dynamics",
    "flow_curves",
    "free_energies",
    "head_maps",
    "kept_lines",
    "machine_runs",
    "norms",
    "odds_lines",
    "shares",
    "small_spectra",
    "spectrogram",
    "spectrum",
    "spectrum_map",
    "step_axis",
    "training",
]
