"""Pictures and tables of runs."""

from qevo.report.picture import draw_run
from qevo.report.table import accuracy_table

__all__ = ["accuracy_table", "draw_run"]
