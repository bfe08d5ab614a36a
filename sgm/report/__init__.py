"""The report of a study: one offline page with its answers, cells, figures and what made them."""

from sgm.report.page import index_page, report_page, write_index, write_report
from sgm.report.source import Source, of_published, of_results

__all__ = [
    "Source",
    "index_page",
    "of_published",
    "of_results",
    "report_page",
    "write_index",
    "write_report",
]
