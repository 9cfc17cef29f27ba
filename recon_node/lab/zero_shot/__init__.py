"""A network on scanners and patients that it never saw, told what is right, what is wrong, or nothing."""

from recon_node.lab.zero_shot.cases import Scanner, scanners
from recon_node.lab.zero_shot.report import write_reports
from recon_node.lab.zero_shot.study import ZeroShotStudy, run

__all__ = ["Scanner", "ZeroShotStudy", "run", "scanners", "write_reports"]
