"""Films: reading and writing them frame by frame, in constant memory.

A film is a file of a container such as MP4 or Matroska, an animation (GIF, WebP, APNG) or a folder of numbered
pictures. :func:`open_film` reads each of them, :class:`FilmWriter` writes each of them. Containers need PyAV, which
``pip install fastnst[film]`` installs.
"""

from __future__ import annotations

from fastnst.config.film import FilmSettings
from fastnst.film.consistency import reliability, stillness
from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.film.flicker import warping_error
from fastnst.film.flow import DisFlow, FlowEstimator, RaftFlow, warp
from fastnst.film.making import FilmProgress
from fastnst.film.progress_film import ProgressFilm
from fastnst.film.provenance import read_film_settings
from fastnst.film.reading import open_film
from fastnst.film.request import FilmReport, FilmRequest
from fastnst.film.run import stylize_film
from fastnst.film.shots import Shot
from fastnst.film.writing import FilmWriter, check_target

__all__ = [
    "DisFlow",
    "Film",
    "FilmInfo",
    "FilmProgress",
    "FilmReport",
    "FilmRequest",
    "FilmSettings",
    "FilmWriter",
    "FlowEstimator",
    "Frame",
    "ProgressFilm",
    "RaftFlow",
    "Shot",
    "check_target",
    "open_film",
    "read_film_settings",
    "reliability",
    "stillness",
    "stylize_film",
    "warp",
    "warping_error",
]
