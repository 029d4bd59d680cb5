"""One command for the first look at a GPU: installs, tests and measures without a network, and prints a summary last.

Uses the standard library alone. fastnst and torch are imported by the programs that it starts, never here.
"""
