"""The node as a service: everything between a connection and the spool.

`wiring` joins settings, server, delivery and health port. `node` works on one scan, with `turns` for the
device and `ahead` for reading on; `deferral` makes later what no console waits for, from `deferred_scans`
on disk, and `deferred_session` plays one back. `metrics` counts.
"""
