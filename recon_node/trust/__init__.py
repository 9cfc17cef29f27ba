"""How far a reconstruction is to be believed, without knowing the truth."""

from recon_node.trust.calibration import calibrate, conformal_quantile, group_of
from recon_node.trust.holdout import HeldOut, hold_out
from recon_node.trust.limits import DEFAULTS, Limit, Limits, load_limits, save_limits
from recon_node.trust.measures import MEASURES, Measures, measure
from recon_node.trust.novelty import TrainedOn, novelty
from recon_node.trust.verdict import FOLDED_SHARE, judge, judge_measures, judge_reconstruction

__all__ = [
    "DEFAULTS",
    "FOLDED_SHARE",
    "MEASURES",
    "HeldOut",
    "Limit",
    "Limits",
    "Measures",
    "TrainedOn",
    "calibrate",
    "conformal_quantile",
    "group_of",
    "hold_out",
    "judge",
    "judge_measures",
    "judge_reconstruction",
    "load_limits",
    "measure",
    "novelty",
    "save_limits",
]
