"""Takes the schemas in this folder from the sources of KEDA and of the Prometheus operator.

    go mod download -json github.com/kedacore/keda/v2@v2.21.0  # says "Dir"
    go mod download -json github.com/prometheus-operator/prometheus-operator@v0.85.0
    python tests/deploy/schemas/take.py KEDA_DIR PROMETHEUS_OPERATOR_DIR

Both are under the Apache License 2.0. Descriptions are left out; nothing else is changed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SCALERS = ("kafka", "aws-sqs-queue", "rabbitmq")


def schema(file: Path) -> Any:
    """The schema of the newest version that a custom resource definition serves."""
    definition = yaml.safe_load(file.read_text())
    served = [version for version in definition["spec"]["versions"] if version["served"]]
    return undescribed(served[-1]["schema"]["openAPIV3Schema"])


def undescribed(node: Any) -> Any:
    """`node` without texts for people."""
    if isinstance(node, list):
        return [undescribed(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: undescribed(value)
        for name, value in node.items()
        if not (name == "description" and isinstance(value, str))
    }


def write(name: str, document: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n")


def main(keda: Path, operator: Path) -> None:
    bases = keda / "config/crd/bases"
    scalers = json.loads((keda / "schema/generated/scalers-schema.json").read_text())["scalers"]
    write(
        "keda.json",
        {
            "ScaledObject": schema(bases / "keda.sh_scaledobjects.yaml"),
            "TriggerAuthentication": schema(bases / "keda.sh_triggerauthentications.yaml"),
            "scalers": {each["type"]: each for each in scalers if each["type"] in SCALERS},
        },
    )
    bases = operator / "example/prometheus-operator-crd"
    write(
        "prometheus-operator.json",
        {
            "ServiceMonitor": schema(bases / "monitoring.coreos.com_servicemonitors.yaml"),
            "PrometheusRule": schema(bases / "monitoring.coreos.com_prometheusrules.yaml"),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
