"""The whole way in one run, with a scanner and a PACS that are made up."""

from recon_node.lab.demo.run import run_demo

__all__ = ["run_demo"]
