"""Tables and figures on disk, each with a record of where it comes from.

started = report.begin()
origin = report.collect(started, cfg, tier="reduced", stores=stores, notebook="benchmark")
folder = report.write_table("benchmark", rows, provenance=origin, root="paper_tables")
report.read_table(folder)
"""

from xfavot.report.artifact import (
    COLUMNS,
    begin,
    collect,
    footnoted,
    listing,
    read_table,
    write_figure,
    write_table,
)

__all__ = [
    "COLUMNS",
    "begin",
    "collect",
    "footnoted",
    "listing",
    "read_table",
    "write_figure",
    "write_table",
]
