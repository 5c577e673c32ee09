"""The virtual environment that the README's commands use: made on first use, brought up to date when needed."""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")


def ensure(extras: str) -> None:
    """Install prunit with these extras into .venv unless that was done already for the present requirements."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this runs before pip can refuse
        sys.exit(f"prunit needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    wanted = hashlib.sha256(
        b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")) + extras.encode()
    ).hexdigest()
    stamp = VENV / "prunit-installed.txt"
    if stamp.exists() and wanted in stamp.read_text().split():
        return
    if not (BIN / ("python.exe" if os.name == "nt" else "python")).exists():
        print(f"making the virtual environment {VENV}", flush=True)
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    # torch first and pinned, so that nothing that is installed later replaces it by another build.
    _pip("install", "--quiet", "-c", "constraints.txt", "torch==2.13.0")
    _pip("install", "--quiet", "-c", "constraints.txt", "--editable", f".[{extras}]")
    done = stamp.read_text() if stamp.exists() else ""
    stamp.write_text(f"{done}{wanted}\n")


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a program of the virtual environment in the project's folder; stop with its exit code if it fails."""
    print(f"$ {' '.join(command)}", flush=True)
    program = str(BIN / command[0])
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path, "VIRTUAL_ENV": str(VENV), **(environment or {})}
    code = subprocess.run([program, *command[1:]], cwd=ROOT, env=env, check=False).returncode
    if code:
        sys.exit(code)


def _pip(*arguments: str) -> None:
    command = [str(BIN / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
    print(f"$ pip {' '.join(arguments)}", flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("the installation failed; see the lines above")
