"""What is applied to Kubernetes: valid for its schemas, and nothing that a policy should refuse."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from vault_ml import settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/vault-ml"
PLAIN = ["kubernetes.yaml", "hub-ml.yaml"]
VERSIONS = ["1.31.0", "1.33.0", "1.35.0", "1.37.0"]
_SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|RECORDING_KEYS|TOKEN")


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


def complaints(manifest: dict[str, Any]) -> Iterator[str]:
    """Why a policy would refuse the manifest: root, rights, missing limits, secrets in the open."""
    if manifest["kind"] == "Secret" and (manifest.get("data") or manifest.get("stringData")):
        yield "a secret in the open"
    if manifest["kind"] != "Deployment":
        return
    pod = manifest["spec"]["template"]["spec"]
    secure = pod.get("securityContext", {})
    if not secure.get("runAsNonRoot") or not secure.get("runAsUser"):
        yield "may be root"
    if secure.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a token of the cluster's"
    if pod.get("hostNetwork") or pod.get("hostPID") or pod.get("hostIPC"):
        yield "a namespace of the node's"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if not own.get("readOnlyRootFilesystem"):
            yield "the root can be written"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield "may get more rights"
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield "keeps capabilities"
        limits = container.get("resources", {}).get("limits", {})
        if not {"cpu", "memory"} <= set(limits):
            yield "no limits"
        if not {"livenessProbe", "readinessProbe", "startupProbe"} <= set(container):
            yield "no probes"
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            yield "an image that changes"
        for variable in container.get("env", []):
            name = variable["name"]
            if "value" in variable and _SECRET.search(name) and not name.endswith("_FILE"):
                yield f"a secret in the open: {name}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", PLAIN)
def test_the_manifests_fit_the_schemas_of_kubernetes(file: str, version: str) -> None:
    kinds = []
    for manifest in documents((ROOT / file).read_text()):
        kubernetes_validate.validate(manifest, version, strict=True)
        kinds.append(manifest["kind"])
    assert kinds == ["ServiceAccount", "Deployment", "PodDisruptionBudget"]


@pytest.mark.parametrize("file", PLAIN)
def test_no_policy_has_a_reason_to_refuse_them(file: str) -> None:
    manifests = documents((ROOT / file).read_text())
    assert [why for manifest in manifests for why in complaints(manifest)] == []


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("securityContext", "runAsNonRoot"), False, "may be root"),
        (("containers", 0, "resources", "limits"), {"cpu": "1"}, "no limits"),
        (
            ("containers", 0, "env"),
            [{"name": "KAFKA_PASSWORD", "value": "hidden"}],
            "a secret in the open: KAFKA_PASSWORD",
        ),
        (
            ("containers", 0, "securityContext", "readOnlyRootFilesystem"),
            False,
            "the root can be written",
        ),
        (("containers", 0, "securityContext", "capabilities"), {}, "keeps capabilities"),
        (("containers", 0, "image"), "vault-ml:latest", "an image that changes"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_the_policy_does_refuse(path: tuple[str | int, ...], value: object, why: str) -> None:
    manifests = documents((ROOT / "kubernetes.yaml").read_text())
    deployment = copy.deepcopy(next(each for each in manifests if each["kind"] == "Deployment"))
    place: Any = deployment["spec"]["template"]["spec"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert list(complaints(deployment)) == [why]


def test_a_secret_with_content_is_refused() -> None:
    assert list(complaints({"kind": "Secret", "stringData": {"a": "b"}})) == [
        "a secret in the open"
    ]


@pytest.mark.parametrize("file", PLAIN)
def test_the_worker_takes_the_settings_as_they_stand(file: str, tmp_path: Path) -> None:
    manifests = documents((ROOT / file).read_text())
    (deployment,) = [each for each in manifests if each["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    environ = {}
    for variable in pod["containers"][0]["env"]:
        name, text = variable["name"], variable["value"]
        if name.endswith("_FILE"):
            secret = tmp_path / name
            secret.write_text("hidden!1\n")
            text = str(secret)
        environ[name] = text
    chosen = settings.load(environ)
    assert chosen.kafka_password is not None
    assert settings.unknown_variables(environ) == []
    # The grace period outlasts the drain, with time for what follows it.
    assert pod["terminationGracePeriodSeconds"] >= chosen.drain_timeout_s + 10


def test_the_values_of_the_chart_fit_their_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert set(values) == set(schema["properties"]) - {"global"}
    for wrong in (
        {"settings": {"QUEUE_NAME": "q", "KAFKA_PASSWORD": "hidden"}},
        {"image": {"repository": "vault-ml", "tag": "latest"}},
        {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1"}}},
        {"unknown": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values | wrong, schema)


def rendered(*words: str) -> list[dict[str, Any]]:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not here")
    ended = subprocess.run(
        [helm, "template", "cameras", str(CHART), *words], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return documents(ended.stdout)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--set", "gpu.count=1"],
        [
            *("--set", "keda.enabled=true,serviceMonitor.enabled=true"),
            *("--set", "prometheusRule.enabled=true,dashboard.enabled=true"),
        ],
        [
            *("--set", "keda.enabled=true,settings.QUEUE_SYSTEM=SQS"),
            *("--set", "keda.sqs.queueURL=https://sqs.example.com/q"),
        ],
        ["--set", "keda.enabled=true,settings.QUEUE_SYSTEM=RABBITMQ"],
    ],
    ids=["plain", "gpu", "everything", "sqs", "rabbitmq"],
)  # fmt: skip
def test_the_rendered_chart_fits_the_schemas_and_the_policy(words: list[str]) -> None:
    manifests = rendered(*words)
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)
        assert list(complaints(manifest)) == []
    kinds = {manifest["kind"] for manifest in manifests}
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"} <= kinds
    if "keda.enabled=true" in " ".join(words):
        (scaled,) = [each for each in manifests if each["kind"] == "ScaledObject"]
        (trigger,) = scaled["spec"]["triggers"]
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        (deployment,) = [each for each in manifests if each["kind"] == "Deployment"]
        assert "replicas" not in deployment["spec"], "KEDA decides"
