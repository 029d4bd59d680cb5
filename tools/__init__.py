"""Scripts that make shipped files and check builds; run as ``python -m tools.NAME``."""
