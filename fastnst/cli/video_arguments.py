"""The arguments of ``fastnst video`` that other commands do not have."""

from __future__ import annotations

import argparse
import dataclasses

from fastnst.config.film import RANGES, FilmSettings

NOT_OF_FILMS = ("snapshot_every", "init")
"""Settings without an option, since a frame starts from the one before."""

_METAVARS = {"lookback": "N,...", "flow": "NAME", "flow_weights": "FILE", "shots": "HOW"}
_HELP = {
    "temporal_weight": "weight of the mean squared difference to the frame before, warped, where the flow is reliable",
    "still_factor": "how many times that weight holds where nothing moves and nothing changes",
    "next_steps": "steps of each frame after the first of a shot",
    "next_change": "--first-change of those frames, which start near their minimum",
    "lookback": "the frames before that each frame is held to; 1,10,20 brings back what was hidden for some time",
    "flow": "optical flow: dis (OpenCV) or raft (torchvision, needs --flow-weights)",
    "flow_weights": "weights of RAFT",
    "passes": "how often the frames of a shot are optimized, in turn forward and backward, for large motion",
    "blend": "with several passes, weight of the warped neighbor in the start of a frame",
    "shots": "auto finds cuts; off takes the film as one shot; or a TOML file with the shots",
}


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the film, the pictures, the output, and the settings of films."""
    parser.description = (
        "Paint the film FILM in the style of the picture STYLE, or of several. FILM is a video, an animated GIF,\n"
        "WebP or PNG, or a folder of numbered pictures. Frames made so far are kept in the folder OUT.frames until\n"
        "the film is finished: the same command continues a film that was ended."
    )
    parser.usage = "%(prog)s [OPTION ...] FILM STYLE [STYLE ...]"
    parser.set_defaults(command="video")
    film = parser.add_argument("film", metavar="FILM", help="the film to paint")
    style = parser.add_argument("style", metavar="STYLE", nargs="+", help="the style picture; several are blended")
    film.required = style.required = False  # reported by the command, as by the others
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="film to write: .mp4, .mov, .mkv, .webm, .gif, .webp or .apng; a name without a suffix is a folder of "
        "frames (default: FILM_STYLE.mp4 in the current folder)",
    )
    parser.add_argument("--frames", metavar="A:B", help="the frames from A to B, without B; numbers from 0 (no sound)")
    text = "broken frames: refuse or skip (default: refuse)"
    parser.add_argument("--broken", metavar="HOW", default="refuse", help=text)
    parser.add_argument("--codec", metavar="NAME", help="h264, hevc, av1, vp9, ffv1, prores or qtrle")
    parser.add_argument("--quality", metavar="N", help="quality of the codec (1 to 100)")
    parser.add_argument("--keep-frames", action="store_true", help="keep OUT.frames when the film is finished")
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the frames of another film or other settings, an existing file of --save-settings, and an "
        "existing film without -o",
    )
    group = parser.add_argument_group("from frame to frame")
    defaults = FilmSettings()
    for field in dataclasses.fields(FilmSettings):
        name, default = field.name, getattr(defaults, field.name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        limits = f"{RANGES[name].short()}; " if name in RANGES else ""
        text = _HELP[name] + (f" ({limits}default: {shown:g})" if isinstance(shown, (int, float)) else "")
        if isinstance(shown, str):
            text += f" ({limits}default: {shown})"
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"film_{name}",
            metavar=_METAVARS.get(name, "N" if isinstance(default, int) else "X"),
            help=text,
        )
