"""Reports of a judged run, for people and for other programs.

`document` is the run as one JSON document; `write_all` makes everything else from it.
"""

from perfgate.report.document import ReportError, Source, read_document
from perfgate.report.write import write_all

__all__ = ["ReportError", "Source", "read_document", "write_all"]
