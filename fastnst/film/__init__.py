"""Films: reading and writing them frame by frame, in constant memory.

A film is a file of a container such as MP4 or Matroska, an animation (GIF, WebP, APNG) or a folder of numbered
pictures. :func:`open_film` reads each of them, :class:`FilmWriter` writes each of them. Containers need PyAV, which
``pip install fastnst[film]`` installs.
"""

from __future__ import annotations

from fastnst.film.film import Film, FilmInfo, Frame
from fastnst.film.progress_film import ProgressFilm
from fastnst.film.provenance import read_film_settings
from fastnst.film.reading import open_film
from fastnst.film.writing import FilmWriter, check_target

__all__ = ["Film", "FilmInfo", "FilmWriter", "Frame", "ProgressFilm", "check_target", "open_film", "read_film_settings"]
