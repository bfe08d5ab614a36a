"""What a study prints while it runs: a line a finished job. Snakemake's full log is in its file.

A plugin of Snakemake, which finds packages of this name on its path; `make study` asks for it.
"""

from __future__ import annotations

import sys
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

__all__ = ["LogHandler"]

UNSAID = {
    LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED, LogEvent.SHELLCMD,
}  # fmt: skip
UNSAID_WORDS = (
    "Select jobs to execute", "Removing temporary output", "Using shell",
    "Conda environments: ignored", "RuleException:\nCalledProcessError",  # FAILED follows
)  # fmt: skip
LINE = 1000  # characters: an error quotes the command, and with it the whole spec
LOG_LINES = 20


class LogHandler(LogHandlerBase):
    """Handler of one run; a dry run and `--verbose` print all that Snakemake prints."""

    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def __post_init__(self) -> None:
        self.running: dict[int, tuple[str, float]] = {}  # name and start of a job
        self.finished: list[int] = []

    def emit(self, record: LogRecord) -> None:
        whole = self.common_settings.dryrun or self.common_settings.verbose
        text = self.format(record) if whole else self.brief(record)
        if text:
            print(text, file=sys.stderr, flush=True)

    def brief(self, record: LogRecord) -> str:
        """The text of a record; empty if it is for the log file alone."""
        event, about = getattr(record, "event", None), vars(record)
        if event == LogEvent.JOB_INFO:
            words = [about["rule_name"], *(value for _, value in about["wildcards"].items())]
            self.running[about["jobid"]] = (" ".join(words), record.created)
            return ""
        if event == LogEvent.JOB_FINISHED:
            self.finished.append(about["job_id"])
            return ""
        if event == LogEvent.PROGRESS:
            lines = []
            for job in self.finished:
                name, start = self.running.pop(job, ("a job", record.created))
                seconds = f"{record.created - start:.0f} s"
                lines.append(f"[{about['done']}/{about['total']}] {name}, {seconds}")
            self.finished = []
            return "\n".join(lines)
        if event == LogEvent.JOB_ERROR:
            name, _ = self.running.pop(about["jobid"], (about["rule_name"], 0.0))
            return "\n".join([f"FAILED {name}", *map(_tail, about["log"])])
        if event in UNSAID or record.getMessage().startswith(UNSAID_WORDS):
            return ""
        lines = self.format(record).split("\n")
        return "\n".join(line if len(line) <= LINE else f"{line[:LINE]} …" for line in lines)


def _tail(log: str) -> str:
    """The last lines of a log, each indented below its path."""
    path = Path(log)
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n    ".join([f"  {log}:", *(lines[-LOG_LINES:] or ["(empty)"])])
