"""Pictures and tables of runs."""

from qevo.report.picture import draw_run
from qevo.report.roc import Roc, draw_roc, roc_curve
from qevo.report.table import accuracy_table

__all__ = ["Roc", "accuracy_table", "draw_roc", "draw_run", "roc_curve"]
