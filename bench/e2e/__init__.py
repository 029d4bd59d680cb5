"""Whole steps and whole runs on the CPU."""
