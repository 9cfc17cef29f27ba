#!/bin/sh
# The OpenRecon image: the node's image with the label that the scanner reads, made from the node's settings.
# Run from the repository's root, where recon-node is installed: docker/openrecon.sh [settings.toml]
# With DRY_RUN=1 it prints the Dockerfile instead of building it.
set -eu
cd "$(dirname "$0")/.."
version=$(recon-node --version | sed 's/.* //')
dockerfile() {
    cat docker/openrecon.Dockerfile
    recon-node openrecon label --dockerfile ${1:+--config "$1"}
}
if [ "${DRY_RUN:-0}" = 1 ]; then
    dockerfile "$@"
    exit
fi
docker build -f docker/Dockerfile -t recon-node .
dockerfile "$@" | docker build -t "openrecon_recon-node:V${version}" -
