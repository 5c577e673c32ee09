"""All checks: lint, types, import contracts, the links of the documentation, tests.

    python3 scripts/test.py [ARGUMENTS OF PYTEST]

Makes the virtual environment if needed. With arguments only pytest runs, with these.
"""

import sys

import _env

_env.ensure("train,zoo,serve,dev")
if len(sys.argv) == 1:
    _env.run("ruff", "check", ".")
    _env.run("ruff", "format", "--check", ".")
    _env.run("basedpyright")
    _env.run("lint-imports")
    _env.run("python", "scripts/site.py")
# Networks as small as those of the tests only lose time with more threads: a process for each core does better.
whole = sys.argv[1:] or ["-n", "auto", "--dist", "worksteal"]
_env.run("pytest", *whole, environment={"OMP_NUM_THREADS": "1"})
