"""What is applied to Kubernetes: valid for its schemas, and nothing that a policy should refuse."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from development_tool import tool
from vault_ml import settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/vault-ml"
PLAIN = ["kubernetes.yaml", "hub-ml.yaml"]
SCHEMAS = {  # file -> whose resources it holds
    "keda.json": ["keda.sh"],
    "prometheus-operator.json": ["monitoring.coreos.com"],
}
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
    assert pod["terminationGracePeriodSeconds"] >= chosen.drain_timeout_s + 30


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


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("helm"), *words], capture_output=True, text=True)


def rendered(version: str, *words: str) -> list[dict[str, Any]]:
    ended = helm("template", "cameras", str(CHART), "--kube-version", version, *words)
    assert ended.returncode == 0, ended.stderr
    return documents(ended.stdout)


def custom(manifest: dict[str, Any]) -> None:
    """Check a resource of KEDA's or the Prometheus operator's against their own schemas."""
    group = manifest["apiVersion"].partition("/")[0]
    (file,) = [name for name, groups in SCHEMAS.items() if group in groups]
    schema = json.loads((ROOT / "tests/deploy/schemas" / file).read_text())[manifest["kind"]]
    jsonschema.validate(manifest, closed(schema))


def closed(schema: Any) -> Any:
    """`schema` which refuses fields that it does not name; a cluster would drop them silently."""
    if not isinstance(schema, dict):
        return schema
    narrowed = {
        name: closed(value)
        for name, value in schema.items()
        # Go writes flags where Python does not take them.
        if not (name == "pattern" and "(?i)" in str(value))
    }
    if "properties" in schema:
        fields = {name: closed(value) for name, value in schema["properties"].items()}
        is_left_open = schema.get("x-kubernetes-preserve-unknown-fields") or not fields
        narrowed |= {"properties": fields, "additionalProperties": bool(is_left_open)}
    return narrowed


def complaints_of_keda(manifest: dict[str, Any], authentication: dict[str, Any]) -> Iterator[str]:
    """What KEDA's own table of triggers has against a ScaledObject."""
    scalers = json.loads((ROOT / "tests/deploy/schemas/keda.json").read_text())["scalers"]
    for trigger in manifest["spec"]["triggers"]:
        known = {each["name"]: each for each in scalers[trigger["type"]]["parameters"]}
        given = trigger["metadata"]
        for name, value in given.items():
            if not known.get(name, {}).get("metadataVariableReadable"):
                yield f"{trigger['type']}: {name} is not read"
            elif value not in known[name].get("allowedValue", [value]):
                yield f"{trigger['type']}: {name} may not be {value}"
        secrets = {each["parameter"] for each in authentication["spec"].get("secretTargetRef", [])}
        for name in secrets:
            if not known.get(name, {}).get("triggerAuthenticationVariableReadable"):
                yield f"{trigger['type']}: {name} is not taken from an authentication"
        for name, each in known.items():
            is_needed = not each.get("optional") and "default" not in each
            if is_needed and name not in given and name not in secrets:
                yield f"{trigger['type']}: {name} is needed"


ALL = "keda.enabled=true,serviceMonitor.enabled=true,prometheusRule.enabled=true"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--set", "gpu.count=1"],
        ["--set", f"{ALL},dashboard.enabled=true"],
        ["--set", "keda.enabled=true,keda.kafka.sasl=none"],
        [
            *("--set", "keda.enabled=true,settings.QUEUE_SYSTEM=SQS"),
            *("--set", "keda.sqs.queueURL=https://sqs.example.com/q,keda.sqs.region=eu-west-1"),
        ],
        ["--set", "keda.enabled=true,settings.QUEUE_SYSTEM=RABBITMQ"],
    ],
    ids=["plain", "gpu", "everything", "no login", "sqs", "rabbitmq"],
)  # fmt: skip
def test_the_rendered_chart_fits_every_schema_and_the_policy(
    words: list[str], version: str
) -> None:
    manifests = rendered(version, *words)
    for manifest in manifests:
        if manifest["apiVersion"].startswith(("keda.sh/", "monitoring.coreos.com/")):
            custom(manifest)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)
        assert list(complaints(manifest)) == []
    kinds = {manifest["kind"]: manifest for manifest in manifests}
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount"} <= set(kinds)
    if "keda.enabled=true" in " ".join(words):
        nothing: dict[str, Any] = {"spec": {}}
        authentication = kinds.get("TriggerAuthentication", nothing)
        assert list(complaints_of_keda(kinds["ScaledObject"], authentication)) == []
        assert "replicas" not in kinds["Deployment"]["spec"], "KEDA decides"
        # A worker may drain to its end before the next one is taken away.
        (policy,) = kinds["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"][
            "behavior"
        ]["scaleDown"]["policies"]
        grace_s = kinds["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert policy["periodSeconds"] >= grace_s


def test_the_schemas_refuse_what_is_wrong() -> None:
    manifests = {
        each["kind"]: each
        for each in rendered(VERSIONS[-1], "--set", "keda.enabled=true,serviceMonitor.enabled=true")
    }
    scaled = manifests["ScaledObject"]
    monitor = manifests["ServiceMonitor"]
    for manifest, place, wrong in (
        (scaled, scaled["spec"], {"maxReplicas": 3}),
        (scaled, scaled["spec"]["triggers"][0]["metadata"], {"lagThreshold": 5}),
        (monitor, monitor["spec"]["endpoints"][0], {"interval": "soon"}),
    ):
        before = dict(place)
        place.update(wrong)
        with pytest.raises(jsonschema.ValidationError):
            custom(manifest)
        place.clear()
        place.update(before)
        custom(manifest)
    trigger = scaled["spec"]["triggers"][0]["metadata"]
    del trigger["bootstrapServers"]
    trigger |= {"tls": "maybe", "brokers": "a:9092"}
    assert list(complaints_of_keda(scaled, manifests["TriggerAuthentication"])) == [
        "kafka: tls may not be maybe",
        "kafka: brokers is not read",
        "kafka: bootstrapServers is needed",
    ]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("settings.KAFKA_PASSWORD=hidden", "settings"),
        ("image.tag=latest", "tag"),
        ("keda.enabled=true,settings.QUEUE_SYSTEM=SQS", "keda.sqs.queueURL is needed"),
        ("unknown=1", "unknown"),
    ],
)
def test_helm_refuses_values_that_are_wrong(words: str, why: str) -> None:
    ended = helm("template", "cameras", str(CHART), "--set", words)
    assert ended.returncode != 0
    assert why in ended.stderr


def test_helm_has_nothing_against_the_chart() -> None:
    ended = helm("lint", "--strict", str(CHART))
    assert ended.returncode == 0, ended.stdout + ended.stderr
