"""The files in deploy/: what can be checked without a cluster, and that they say what the server understands."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.running import prunit

DEPLOY = Path(__file__).parents[3] / "deploy"


def options() -> str:
    return prunit("serve", "--help").out


def test_every_option_exists() -> None:
    texts = [file.read_text(encoding="utf-8") for file in DEPLOY.iterdir()]
    used = {option for text in texts for option in re.findall(r"--[a-z][a-z-]+", text)}
    others = {"--now", "--from-literal", "--from", "--system", "--create-home", "--no-cache-dir", "--help"}
    known = options()
    assert used - others
    assert [option for option in used - others if option not in known] == []


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "prunit.service").read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])  # pyright: ignore[reportOptionalSubscript]
    assert command[1:3] == ["serve", "/var/lib/prunit/portfolio"]
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    # The program's path is the only thing that this machine lacks.
    (tmp_path / "prunit.service").write_text(text.replace(command[0], "/bin/true"), encoding="utf-8")
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "prunit.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in found.stderr.splitlines() if "prunit.service" in line] == []


def test_kubernetes_objects_fit_together() -> None:
    deployment, service = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    pod: dict[str, Any] = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    ports = {port["name"] for port in container["ports"]}
    probes = [container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")]
    assert {probe["port"] for probe in probes} | {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert [probe["path"] for probe in probes] == ["/v2/health/ready", "/v2/health/live"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_container_holds_no_torch() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    assert '".[serve]"' in text
    assert "torch" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert text.count("\nFROM ") + text.startswith("FROM ") == 2
    assert text.index("USER prunit") < text.index("ENTRYPOINT")
