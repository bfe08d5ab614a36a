"""What `make study` prints: the plugin on Snakemake's own records."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from snakemake.logging import DefaultFormatter
from snakemake.settings.types import OutputSettings
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_sgm import LINE, LogHandler


def record(message: str | None, at: float = 0.0, **about: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelno": logging.INFO, **about})
    made.created = at
    return made


def job(jobid: int, rule: str, at: float, **wildcards: str) -> logging.LogRecord:
    about = {"rule_name": rule, "jobid": jobid, "wildcards": wildcards}
    return record(None, at, event=LogEvent.JOB_INFO, **about)


def printed(capsys: pytest.CaptureFixture[str], *records: logging.LogRecord) -> list[str]:
    handler = LogHandler(OutputSettings(), None)
    handler.setFormatter(DefaultFormatter())
    for one in records:
        handler.handle(one)
    return capsys.readouterr().err.splitlines()


def test_a_finished_job_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(
        capsys,
        record("Select jobs to execute..."),
        record("Execute 2 jobs...", event=LogEvent.JOB_STARTED, jobs=[3, 4]),
        job(3, "train", 10.0, target="isotropic", seeds="0-9"),
        job(4, "axes", 11.0),
        record("Finished jobid: 3", 42.4, event=LogEvent.JOB_FINISHED, job_id=3),
        record(None, 42.4, event=LogEvent.PROGRESS, done=5, total=118),
        record("Removing temporary output a.npz."),
    )
    assert lines == ["[5/118] train isotropic 0-9, 32 s"]


def test_a_failure_shows_its_log_and_no_kilobytes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {i}\n" for i in range(100)) + "network: no space left\n")
    about = {"rule_name": "train", "jobid": 3, "log": [str(log), "none.log"]}
    lines = printed(
        capsys,
        job(3, "train", 0.0, target="isotropic"),
        record("RuleException:\nCalledProcessError: Command", event=LogEvent.ERROR),
        record("Command '" + "x" * 10_000, event=LogEvent.ERROR),
        record("Error in rule train", event=LogEvent.JOB_ERROR, **about),
    )
    assert max(map(len, lines)) < LINE + 10
    assert lines[1:3] == ["FAILED train isotropic", f"  {log}:"]
    assert lines[-3:] == ["    network: no space left", "  none.log:", "    (empty)"]
    assert len(lines) < 30


def test_what_is_said_of_the_whole_run_stays(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["Nothing to be done.", "The results are in results/quick.", "Elapsed time: 0:03:20"]
    assert printed(capsys, *map(record, words)) == words
