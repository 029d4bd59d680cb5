"""Damaged and hostile input for everything that fastnst reads.

An input is made from a reader's name and a number alone, so a failure is repeated by naming both:
``python -m tests.fuzz --reader mat --seed 17``.
"""
