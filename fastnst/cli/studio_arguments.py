"""The options of ``fastnst studio``."""

from __future__ import annotations

import argparse


def add_studio_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Open a page on this machine where pictures are dropped, masks are painted, and runs are started, watched,\n"
        "steered and kept. Runs go on when the page is closed, and continue when the studio is started again."
    )
    parser.set_defaults(command="studio")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        default="studio",
        help="folder of the pictures and runs; made if it is missing (default: studio)",
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in, with --token (default: 127.0.0.1)",
    )
    parser.add_argument("--port", metavar="N", default="7860", help="port; 0 for one that is free (default: 7860)")
    parser.add_argument(
        "--token",
        metavar="TEXT",
        help="what visitors need to enter, at least 16 characters; each has a gallery of its own",
    )
    parser.add_argument(
        "--parallel", metavar="N", default="1", help="runs that are computed at a time (1 to 16; default: 1)"
    )
    parser.add_argument("--max-pixels", metavar="N", help="largest picture that is read (default: the limit of Pillow)")
    parser.add_argument("--demo", action="store_true", help="open the page with the pictures that come with fastnst")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
