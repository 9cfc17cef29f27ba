"""The status page: what the node does now, for the people who run it."""

from recon_node.online.status.board import StatusBoard
from recon_node.online.status.page import StatusPage
from recon_node.online.status.web import StatusServer

__all__ = ["StatusBoard", "StatusPage", "StatusServer"]
