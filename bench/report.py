"""Write the tables of results again from their JSON files, with the results of all machines side by side.

python -m bench.report [NAME ...] [--out bench/results]
"""

from __future__ import annotations

from collections.abc import Mapping

from bench.common import results
from bench.common.options import parser
from bench.common.results import Tables
from bench.e2e import (
    optimizers,
    parity,
    plan_check,
    race_report,
    scaling,
    scaling_pixels,
    shared,
    style_losses,
    tiles,
    time_to_loss,
)
from bench.film import flicker
from bench.ops import ops_report

TABLES: Mapping[str, Tables] = {
    "flicker": flicker.tables,
    "ops": ops_report.tables,
    "optimizers": optimizers.tables,
    "parity": parity.tables,
    "plan_check": plan_check.tables,
    "race": race_report.tables,
    "race_sets": race_report.tables,
    "race_sizes": race_report.tables,
    "ranks": scaling.tables,
    "scaling": scaling_pixels.tables,
    "shared": shared.tables,
    "style_losses": style_losses.tables,
    "masks": style_losses.tables,
    "tiles": tiles.tables,
    "tiles_memory": tiles.memory_tables,
    "time_to_loss": time_to_loss.tables,
}


def main() -> None:
    arguments = parser(__doc__, out=True)
    arguments.add_argument("names", nargs="*", metavar="NAME", help="of results (default: all that are there)")
    options = arguments.parse_args()
    known = ", ".join(TABLES)
    for name in options.names:
        if name not in TABLES:
            arguments.error(f"no results are called {name!r} (known: {known})")
    for name in options.names or TABLES:
        if (options.out / f"{name}.json").exists():
            results.render(options.out, name, TABLES[name])
            print(options.out / f"{name}.md")


if __name__ == "__main__":
    main()
