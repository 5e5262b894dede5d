"""Tarnowski et al., "Dynamical Isometry is Achieved in Residual Networks" (arXiv 1809.08848): spectra of Jacobians."""
