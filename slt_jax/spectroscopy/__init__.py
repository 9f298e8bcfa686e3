"""The developmental study: history → phases → checkpoints → readings → alignment → construction."""

from slt_jax.restriction import check_together
from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.acquisition import Acquisition
from slt_jax.spectroscopy.agreement import (
    HalfWay,
    Interval,
    RankAgreement,
    half_way,
    own_transition,
    rank_agreement,
)
from slt_jax.spectroscopy.align import Alignment, align
from slt_jax.spectroscopy.checkpoints import Measured, choose_checkpoints, more_checkpoints
from slt_jax.spectroscopy.coefficient_locality import CoefficientLocality, coefficient_locality
from slt_jax.spectroscopy.coincidence import OrderAgreement, order_agreement, shift_test, stretch_of
from slt_jax.spectroscopy.compare import compare
from slt_jax.spectroscopy.comparison import Agreement, Comparison
from slt_jax.spectroscopy.construct import Construction, construct, construction_schema
from slt_jax.spectroscopy.contact_probe import contact_probe
from slt_jax.spectroscopy.controls import Control, shuffled, surrogate
from slt_jax.spectroscopy.counterparts import Counterparts, counterparts
from slt_jax.spectroscopy.critical import CriticalPoint, critical_points, over_temperatures
from slt_jax.spectroscopy.cusps import Cusp, cusps
from slt_jax.spectroscopy.directions import (
    Directions,
    along,
    by_scores,
    largest_moves,
    largest_moves_seen,
    steps_between,
)
from slt_jax.spectroscopy.dos_probe import dos_probe
from slt_jax.spectroscopy.dynamics import (
    EssentialDynamics,
    essential_dynamics,
    even_in_log,
    random_walk_shares,
)
from slt_jax.spectroscopy.events import Events, Series, events_of_curve, events_of_series
from slt_jax.spectroscopy.flow_probe import flow_probe
from slt_jax.spectroscopy.grafting import Grafts, assembled, grafts
from slt_jax.spectroscopy.graph import Relation
from slt_jax.spectroscopy.hessian_probe import hessian_probe
from slt_jax.spectroscopy.identity import content
from slt_jax.spectroscopy.locality import Locality, locality
from slt_jax.spectroscopy.loss_changes import loss_changes
from slt_jax.spectroscopy.naming import PhaseName, name_phases
from slt_jax.spectroscopy.nulls import random_coordinates, random_subspace
from slt_jax.spectroscopy.observations import Observation, norms, observation, project_outputs
from slt_jax.spectroscopy.pairing import Pair, SourceAlignment
from slt_jax.spectroscopy.phases import ChangePoints, Phases, detect_phases, measured_at
from slt_jax.spectroscopy.probes import Probe, llc_probe
from slt_jax.spectroscopy.recorder import History, Recorder, Recording, recorder_of
from slt_jax.spectroscopy.refinement import Refinements, refinements
from slt_jax.spectroscopy.relations import Relations, relations, states_at_plateaus
from slt_jax.spectroscopy.scan import Cell, Checkpoint, CheckpointError, check_scan, scan
from slt_jax.spectroscopy.selection import select_restrictions
from slt_jax.spectroscopy.signatures import Signature, phase_signature, stage_signature
from slt_jax.spectroscopy.staircases import Staircase, staircases
from slt_jax.spectroscopy.subject import Subject, Subloss, as_subject
from slt_jax.spectroscopy.susceptibility_probe import susceptibility_probe
from slt_jax.spectroscopy.transitions import Transition, transitions, usual_kinds
from slt_jax.spectroscopy.units import units

__all__ = [
    "Acquisition",
    "Agreement",
    "Alignment",
    "Cell",
    "ChangePoints",
    "Checkpoint",
    "CheckpointError",
    "CoefficientLocality",
    "Comparison",
    "Construction",
    "Control",
    "Counterparts",
    "CriticalPoint",
    "Cusp",
    "Directions",
    "EssentialDynamics",
    "Events",
    "Grafts",
    "HalfWay",
    "History",
    "Interval",
    "Locality",
    "Measured",
    "Observation",
    "OrderAgreement",
    "Pair",
    "PhaseName",
    "Phases",
    "Probe",
    "RankAgreement",
    "Recorder",
    "Recording",
    "Refinements",
    "Relation",
    "Relations",
    "Series",
    "Signature",
    "SourceAlignment",
    "Staircase",
    "Subject",
    "Subloss",
    "Transition",
    "align",
    "along",
    "as_subject",
    "assembled",
    "by_scores",
    "check_scan",
    "check_together",
    "choose_checkpoints",
    "coefficient_locality",
    "compare",
    "construct",
    "construction_schema",
    "contact_probe",
    "content",
    "counterparts",
    "critical_points",
    "cusps",
    "detect_phases",
    "dos_probe",
    "essential_dynamics",
    "even_in_log",
    "events_of_curve",
    "events_of_series",
    "fingerprint",
    "flow_probe",
    "grafts",
    "half_way",
    "hessian_probe",
    "largest_moves",
    "largest_moves_seen",
    "llc_probe",
    "locality",
    "loss_changes",
    "measured_at",
    "more_checkpoints",
    "name_phases",
    "norms",
    "observation",
    "order_agreement",
    "over_temperatures",
    "own_transition",
    "phase_signature",
    "project_outputs",
    "random_coordinates",
    "random_subspace",
    "random_walk_shares",
    "rank_agreement",
    "recorder_of",
    "refinements",
    "relations",
    "scan",
    "select_restrictions",
    "shift_test",
    "shuffled",
    "stage_signature",
    "staircases",
    "states_at_plateaus",
    "steps_between",
    "stretch_of",
    "surrogate",
    "susceptibility_probe",
    "transitions",
    "units",
    "usual_kinds",
]
