"""The developmental study: history → phases → checkpoints → readings → alignment → construction."""

from slt_jax.restriction import check_together
from slt_jax.spectroscopy import fingerprint
from slt_jax.spectroscopy.agreement import (
    HalfWay,
    Interval,
    RankAgreement,
    half_way,
    own_transition,
    rank_agreement,
)
from slt_jax.spectroscopy.align import Alignment, align
from slt_jax.spectroscopy.checkpoints import choose_checkpoints
from slt_jax.spectroscopy.coefficient_locality import CoefficientLocality, coefficient_locality
from slt_jax.spectroscopy.compare import compare
from slt_jax.spectroscopy.comparison import Agreement, Comparison
from slt_jax.spectroscopy.construct import Construction, construct
from slt_jax.spectroscopy.contact_probe import contact_probe
from slt_jax.spectroscopy.directions import (
    Directions,
    along,
    by_scores,
    largest_moves,
    largest_moves_seen,
    steps_between,
)
from slt_jax.spectroscopy.dos_probe import dos_probe
from slt_jax.spectroscopy.flow_probe import flow_probe
from slt_jax.spectroscopy.hessian_probe import hessian_probe
from slt_jax.spectroscopy.identity import content
from slt_jax.spectroscopy.locality import Locality, locality
from slt_jax.spectroscopy.nulls import random_coordinates, random_subspace
from slt_jax.spectroscopy.phases import Phases, detect_phases
from slt_jax.spectroscopy.probes import Probe, llc_probe
from slt_jax.spectroscopy.recorder import History, Recorder, Recording, recorder_of
from slt_jax.spectroscopy.scan import Cell, Checkpoint, CheckpointError, check_scan, scan
from slt_jax.spectroscopy.selection import select_restrictions
from slt_jax.spectroscopy.signatures import Signature, phase_signature, stage_signature
from slt_jax.spectroscopy.subject import Subject, Subloss, as_subject
from slt_jax.spectroscopy.susceptibility_probe import susceptibility_probe
from slt_jax.spectroscopy.transitions import Transition, transitions, usual_kinds
from slt_jax.spectroscopy.units import units

__all__ = [
    "Agreement",
    "Alignment",
    "Cell",
    "Checkpoint",
    "CheckpointError",
    "CoefficientLocality",
    "Comparison",
    "Construction",
    "Directions",
    "HalfWay",
    "History",
    "Interval",
    "Locality",
    "Phases",
    "Probe",
    "RankAgreement",
    "Recorder",
    "Recording",
    "Signature",
    "Subject",
    "Subloss",
    "Transition",
    "align",
    "along",
    "as_subject",
    "by_scores",
    "check_scan",
    "check_together",
    "choose_checkpoints",
    "coefficient_locality",
    "compare",
    "construct",
    "contact_probe",
    "content",
    "detect_phases",
    "dos_probe",
    "fingerprint",
    "flow_probe",
    "half_way",
    "hessian_probe",
    "largest_moves",
    "largest_moves_seen",
    "llc_probe",
    "locality",
    "own_transition",
    "phase_signature",
    "random_coordinates",
    "random_subspace",
    "rank_agreement",
    "recorder_of",
    "scan",
    "select_restrictions",
    "stage_signature",
    "steps_between",
    "susceptibility_probe",
    "transitions",
    "units",
    "usual_kinds",
]
