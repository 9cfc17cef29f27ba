"""Does the text help? Networks trained alike but for the texts they see, on settings written down before."""

from recon_node.lab.ablation.plan import Plan, load_plan, planned
from recon_node.lab.ablation.report import write_reports
from recon_node.lab.ablation.run import run

__all__ = ["Plan", "load_plan", "planned", "run", "write_reports"]
