"""A page to look at, and figures, from the folders that other commands have written."""

from __future__ import annotations

from elicitor.report.gather import gather
from elicitor.report.page import page_data, render_page, write_page
from elicitor.report.views import Views

__all__ = ["Views", "gather", "page_data", "render_page", "write_page"]
