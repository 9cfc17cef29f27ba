"""The module that Gadgetron runs: ``python -m gadgetron PORT recon_node.gadget acquisitions``."""

import sys

from recon_node.online.gadget import acquisitions, buckets, listen, main, recon_data

__all__ = ["acquisitions", "buckets", "listen", "main", "recon_data"]

if __name__ == "__main__":
    sys.exit(main())
