"""A model of the time of CUDA kernels, from their machine code and launches: see __main__.py."""
