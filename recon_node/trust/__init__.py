"""How far a reconstruction is to be believed, without knowing the truth."""

from recon_node.trust.calibration import calibrate, conformal_quantile, group_of, groups_of
from recon_node.trust.expected import ErrorModel, Line
from recon_node.trust.holdout import HeldOut, hold_out
from recon_node.trust.limits import DEFAULTS, Limit, Limits, load_limits, save_limits
from recon_node.trust.measures import MEASURES, Measures, measure
from recon_node.trust.novelty import TrainedOn, novelty
from recon_node.trust.verdict import (
    FOLDED_SHARE,
    Standards,
    doubt,
    doubts_of,
    judge,
    judge_measures,
    judge_reconstruction,
)

__all__ = [
    "DEFAULTS",
    "FOLDED_SHARE",
    "MEASURES",
    "ErrorModel",
    "HeldOut",
    "Limit",
    "Limits",
    "Line",
    "Measures",
    "Standards",
    "TrainedOn",
    "calibrate",
    "conformal_quantile",
    "doubt",
    "doubts_of",
    "group_of",
    "groups_of",
    "hold_out",
    "judge",
    "judge_measures",
    "judge_reconstruction",
    "load_limits",
    "measure",
    "novelty",
    "save_limits",
]
