"""Benchmarks: single ops (``bench.ops``), whole runs (``bench.e2e``) and everything on a GPU (``bench.gpu``)."""
