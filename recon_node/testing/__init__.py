"""Tests that a method, a file format or a destination of anybody's can be held to.

Subclass one in a test module of your own, say how to make yours, and let pytest collect it
(docs/plugins.md). The built-in ones pass the same tests. The classes use hypothesis; both come with
``pip install recon-node[testing]``, and this package itself imports neither before a test runs.
"""

from recon_node.testing.destinations import DestinationTests
from recon_node.testing.reconstructors import ReconstructorTests
from recon_node.testing.scenes import Scene
from recon_node.testing.sources import SourceTests

__all__ = ["DestinationTests", "ReconstructorTests", "Scene", "SourceTests"]
