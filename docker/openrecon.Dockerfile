# docker/openrecon.sh adds the LABEL line that the scanner reads. Weights are inside the image: the scanner's
# host lends a container no network and no folders.
# hadolint ignore=DL3006
FROM recon-node
ENV RECON_NODE__SERVER__OUT=/tmp/images \
    RECON_NODE__SERVER__DEFERRED=/tmp/deferred \
    RECON_NODE__DELIVERY__SPOOL=/tmp/spool
WORKDIR /tmp
CMD ["serve", "--host", "0.0.0.0", "--port", "9002"]
HEALTHCHECK NONE
