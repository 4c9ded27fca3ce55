"""Make tests/infra/kuberay-VERSION.json from the CRDs of a KubeRay release.

    python tests/tools/trim_crds.py 1.7.0 CHECKOUT/helm-chart/kuberay-operator/crds > tests/infra/kuberay-1.7.0.json

Keeps the schema of `spec` in version v1 of RayCluster, RayJob and RayCronJob; drops descriptions and what JSON schema
does not know; keeps what occurs more than once in one place, under $defs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}
NOTICE = (
    "Trimmed from the custom resource definitions of KubeRay {version} (https://github.com/ray-project/kuberay, "
    "helm-chart/kuberay-operator/crds). Copyright the KubeRay authors, licensed under the Apache License, Version 2.0. "
    "Changed: see tests/tools/trim_crds.py."
)


def strip(node: Any, *, names_fields: bool = False) -> Any:
    """Return a schema without prose; an object with known fields takes no others."""
    if isinstance(node, list):
        return [strip(item) for item in node]
    if not isinstance(node, dict):
        return node
    if names_fields:
        return {name: strip(value) for name, value in node.items()}
    kept = {name: value for name, value in node.items() if name != "description" and not name.startswith("x-kubernetes")}
    result = {name: strip(value, names_fields=name == "properties") for name, value in kept.items()}
    if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        result = {"type": ["integer", "string"]}
    return result


def text_of(node: Any) -> str:
    return json.dumps(node, sort_keys=True)


def count(node: Any, seen: Counter[str]) -> None:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and isinstance(node.get("type"), str):
        seen[text_of(node)] += 1
    for child in children:
        count(child, seen)


def share(node: Any, often: set[str], shared: dict[str, Any], *, is_top: bool = False) -> Any:
    """Return a schema whose repeated parts are references into ``shared``."""
    if isinstance(node, list):
        return [share(item, often, shared) for item in node]
    if not isinstance(node, dict):
        return node
    text = text_of(node)
    inner = lambda: {name: share(value, often, shared) for name, value in node.items()}  # noqa: E731
    if is_top or text not in often:
        return inner()
    name = hashlib.sha256(text.encode()).hexdigest()[:8]
    if name not in shared:
        shared[name] = inner()
    return {"$ref": f"#/$defs/{name}"}


def main() -> None:
    version, folder = sys.argv[1], Path(sys.argv[2])
    specs: dict[str, Any] = {}
    for kind, plural in KINDS.items():
        definition = yaml.load((folder / f"ray.io_{plural}.yaml").read_text(), Loader=yaml.CSafeLoader)
        served = next(item for item in definition["spec"]["versions"] if item["name"] == "v1")
        specs[kind] = strip(served["schema"]["openAPIV3Schema"]["properties"]["spec"])
    seen: Counter[str] = Counter()
    count(specs, seen)
    often = {text for text, times in seen.items() if times > 1 and len(text) > 200}
    shared: dict[str, Any] = {}
    kinds = {kind: share(spec, often, shared, is_top=True) for kind, spec in specs.items()}
    print('{"notice": ' + json.dumps(NOTICE.format(version=version)) + ',\n"$defs": {')
    print(",\n".join(f'"{name}": {json.dumps(shared[name], separators=(",", ":"))}' for name in sorted(shared)))
    print('},\n"kinds": {')
    print(",\n".join(f'"{kind}": {json.dumps(spec, separators=(",", ":"))}' for kind, spec in kinds.items()) + "}}")


if __name__ == "__main__":
    main()
