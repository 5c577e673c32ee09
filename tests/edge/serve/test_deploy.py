"""The files in deploy/: what can be checked without a cluster, and that they say what the server understands."""

import os
import re
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunit.edge.ray_serve import Arguments, Wanted
from tests.cli.running import prunit
from tests.edge.folders import X_BCHW, gives, portfolio_in
from tests.edge.serving import serving

DEPLOY = Path(__file__).parents[3] / "deploy"


KSERVE = "kserve.yaml"


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


def test_the_configuration_of_ray_serve_is_what_the_application_takes() -> None:
    found = yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text(encoding="utf-8"))
    (application,) = found["applications"]
    assert application["import_path"] == "prunit.edge.ray_serve:app"
    assert Arguments.model_validate(application["args"]).replicas == 2
    (deployment,) = application["deployments"]
    assert deployment["name"] == "Portfolio"
    assert Wanted.model_validate(deployment["user_config"]).pin is None


def kserve() -> tuple[dict[str, Any], dict[str, Any]]:
    """The runtime and the service."""
    runtime, service = yaml.safe_load_all((DEPLOY / KSERVE).read_text(encoding="utf-8"))
    return runtime, service


def test_kserve_objects_fit_together() -> None:
    runtime, service = kserve()
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = [{key: each[key] for key in ("name", "version")} for each in runtime["spec"]["supportedModelFormats"]]
    assert model["modelFormat"] in formats
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # by which KServe finds it
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in runtime["spec"]["volumes"]}
    # KServe brings the folder to /mnt/models, read-only: what is made for the processor lies elsewhere.
    assert container["args"][0] == "/mnt/models"
    assert f"--cache={mounted['cache']}" in container["args"]
    port = int(container["ports"][0]["containerPort"])
    assert {container[name]["httpGet"]["port"] for name in ("readinessProbe", "livenessProbe")} == {port}
    assert f"--port={port}" in container["args"]
    assert runtime["spec"]["annotations"]["prometheus.kserve.io/port"] == str(port)


def test_the_command_of_kserve_serves_and_answers_its_probes(tmp_path: Path) -> None:
    (container,) = kserve()[0]["spec"]["containers"]
    assert container["command"] == ["prunit", "serve"]
    portfolio_in(tmp_path / "portfolio")
    (tmp_path / "portfolio").chmod(0o555)
    kept = [arg for arg in container["args"][1:] if not arg.startswith(("--port=", "--cache=", "--host="))]
    with serving(
        tmp_path / "portfolio", "--host", "0.0.0.0", f"--cache={tmp_path / 'cache'}", *kept, token=None
    ) as found:
        for probe in ("readinessProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            # By the pod's address and name, as the kubelet and the ingress ask.
            asked = urllib.request.Request(f"http://127.0.0.1:{found.port}{path}", headers={"Host": "10.1.2.3:8080"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                assert answer.status == 200
        assert gives(found.infer()[1], X_BCHW, "large")
        assert not (tmp_path / "portfolio" / ".installed").exists()


def test_kubeconform_accepts_the_manifests() -> None:
    """With KServe's schemas, which are not in the project: PRUNIT_KUBE_SCHEMAS says where, as kubeconform has it."""
    command, schemas = shutil.which("kubeconform"), os.environ.get("PRUNIT_KUBE_SCHEMAS")
    if command is None or not schemas:
        pytest.skip("kubeconform is not installed, or PRUNIT_KUBE_SCHEMAS does not say where KServe's schemas are")
    asked = [command, "-strict", "-summary", "-schema-location", "default", "-schema-location", schemas]
    found = subprocess.run(
        [*asked, DEPLOY / KSERVE, DEPLOY / "kubernetes.yaml"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Skipped: 0" in found.stdout
