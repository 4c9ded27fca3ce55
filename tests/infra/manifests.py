"""Reading the files in infra/, and building them as `kubectl apply -k` would."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KUBERNETES = INFRA / "kubernetes"
OVERLAYS = ("local", "aws", "gcp")
KUBERAY = "1.7.0"
CRDS = json.loads((Path(__file__).parent / f"kuberay-{KUBERAY}.json").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

Manifest = dict[str, Any]


def yaml_files() -> list[Path]:
    """Every YAML file in infra/ but those about watching, which have tests of their own."""
    return sorted(path for path in INFRA.rglob("*.yaml") if "observability" not in path.parts)


def read(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


@cache
def built(folder: str) -> tuple[Manifest, ...]:
    """What a kustomization builds; skips where neither kubectl nor kustomize is installed."""
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed; only the single files were checked")
    done = subprocess.run([*command, str(KUBERNETES / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def one(manifests: tuple[Manifest, ...] | list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [item for item in manifests if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def check_spec(kind: str, spec: Any) -> None:
    """Hold a spec against the CRD; a field that the CRD does not know is an error, as with strict validation."""
    schema = {"$ref": f"#/kinds/{kind}", "$defs": CRDS["$defs"], "kinds": CRDS["kinds"]}
    errors = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(spec)
    ]
    assert not errors, "\n".join(errors)


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """Every pod spec in a manifest, however deep."""
    stack: list[Any] = [manifest]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if "containers" in node:
                yield node
            stack.extend(node.values())


def with_cluster(job: Manifest, cluster: Manifest) -> Manifest:
    """Return a RayJob or RayCronJob with the cluster's spec, as jobs/kustomization.yaml puts it there."""
    spec = json.loads(json.dumps(job["spec"]))
    spec.get("jobTemplate", spec)["rayClusterSpec"] = cluster["spec"]
    return {**job, "spec": spec}
