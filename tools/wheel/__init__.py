"""Builds the sdist and the wheel, audits the wheel, and uses both in empty environments; `python -m tools.wheel`."""
