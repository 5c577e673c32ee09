"""Run the command line in this process and keep what it says on each of the two streams."""

import contextlib
import io
import sys
from dataclasses import dataclass
from typing import Final
from unittest import mock

from prunit.cli import main

PROGRESS: Final = (
    "loading PyTorch",
    "reading ",
    "checking model and data",
    "measuring ",
    "judging images",
    "writing the report",
)
READ: Final = "B in memory"
"""The end of the line that says what was read of a folder."""
STAGES: Final = (": scoring", ": timing plans", ": training", ": evaluating", ": exporting")


@dataclass(frozen=True)
class Result:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on standard error beyond those of progress; fails if there are none or several."""
        lines = [line for line in self.err.splitlines() if not line.startswith(PROGRESS) and not line.endswith(STAGES)]
        lines = [line for line in lines if not line.endswith(READ)]
        assert len(lines) == 1, self.err
        return lines[0]


def prunit(*arguments: object) -> Result:
    """What `prunit ARGUMENTS` says and returns."""
    out, err = io.StringIO(), io.StringIO()
    command = ["prunit", *map(str, arguments)]
    code: object = None
    with mock.patch.object(sys, "argv", command), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int), f"main() ended without an exit code: {out.getvalue()}{err.getvalue()}"
    return Result(code, out.getvalue(), err.getvalue())
