"""Measurements of :mod:`fastnst.notebook`."""
