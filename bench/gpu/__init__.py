"""Ops and the whole loop on a CUDA device."""
