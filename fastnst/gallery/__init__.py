"""Style a folder of pictures: every content with every style, one folder for each pair, and a contact sheet.

A folder with pictures ``content_*`` and ``style_*`` becomes one folder per pair, ``gen_0``, ``gen_1``, ..., and
``sheet.jpg``, which shows all pairs. The folder of a pair holds

- ``content.jpg`` and ``style.jpg``, the pictures at the size they were used in,
- the snapshots ``gen_50.jpg``, ``gen_100.jpg``, ..., named by the number of steps over all scales; the last is the
  result,
- ``pair.json``, which records the input files, the settings and the losses.

A pair's folder is written under a temporary name and renamed when it is complete. A finished pair with the same files
and settings is not made again; one with others is replaced only with ``force``. A pair keeps its number.

With ``torchrun``, each rank makes a share of the pairs.
"""

from __future__ import annotations

from fastnst.gallery.folders import PairResult
from fastnst.gallery.making import PairProgress
from fastnst.gallery.pairs import PAIRINGS, SUFFIXES, Pair, find, pair_up
from fastnst.gallery.run import Report, run

__all__ = ["PAIRINGS", "SUFFIXES", "Pair", "PairProgress", "PairResult", "Report", "find", "pair_up", "run"]
