"""`python -m recon_node` is the `recon-node` command."""

from recon_node.cli import main

if __name__ == "__main__":
    main()
