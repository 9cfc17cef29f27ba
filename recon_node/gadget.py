"""The module that Gadgetron runs: ``python -m gadgetron PORT recon_node.gadget acquisitions``."""

from recon_node.online.gadget import acquisitions, buckets, listen, main, recon_data
from recon_node.online.signals import leave

__all__ = ["acquisitions", "buckets", "listen", "main", "recon_data"]

if __name__ == "__main__":
    leave(main())
