"""Numerical solvers: the SENSE operator, gradients, ADMM, total variation."""
