"""Pages to look at: one scan's images in a viewer, an archive at a glance, a comparison of methods.

Every page is one HTML file that works from a disk: style, script and pictures lie in it, and its content
security policy forbids it to load anything else. Text from files is escaped by the templates. Nothing about
the patient is shown.
"""

from recon_node.report.content import Layer, Report, SliceView
from recon_node.report.overview import INDEX, Line, Overview, link_slices, write_overview
from recon_node.report.page import WARNING, write_report
from recon_node.report.pairs import SIDES, write_pairs
from recon_node.report.pixels import thumbnail
from recon_node.report.study import Study, write_study
from recon_node.report.tables import Chart, Table, Tables, write_tables

__all__ = [
    "INDEX",
    "SIDES",
    "WARNING",
    "Chart",
    "Layer",
    "Line",
    "Overview",
    "Report",
    "SliceView",
    "Study",
    "Table",
    "Tables",
    "link_slices",
    "thumbnail",
    "write_overview",
    "write_pairs",
    "write_report",
    "write_study",
    "write_tables",
]
