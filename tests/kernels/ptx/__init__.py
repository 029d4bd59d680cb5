"""Executes the PTX that nvcc makes of the kernels, for what tests/emulator replaces: ptx.cuh and the compiler."""
