"""Versions in infra/ agree with pyproject.toml, and every command in its files exists and takes its arguments."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet

from stylemill.cli import main as cli
from stylemill.cli.main import main_for_scheduler
from tests.infra.manifests import INFRA, KUBERNETES, PROJECT, ROOT, Manifest, read, yaml_files

DOCKERFILE = (INFRA / "image" / "Dockerfile").read_text()
[RAY] = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
COMPOSE = yaml.safe_load((INFRA / "laptop" / "compose.yaml").read_text())
AWS = yaml.safe_load((INFRA / "aws" / "cluster.yaml").read_text())


def test_ray_and_python_versions():
    python = re.fullmatch(r">=3\.(\d+)", PROJECT["requires-python"])
    assert python and re.findall(r"rayproject/ray:(\S+)", DOCKERFILE) == [f"{RAY}-py3{python[1]}-cpu"]
    [range_of_ray] = [item for item in PROJECT["dependencies"] if item.startswith("ray[")]
    assert RAY in SpecifierSet(range_of_ray.partition("]")[2])
    [cluster] = read(KUBERNETES / "base" / "ray-cluster.yaml")
    assert cluster["spec"]["rayVersion"] == RAY


def test_every_image_tag_is_this_version():
    tags = {
        tag
        for path in [
            *yaml_files(),
            INFRA / "image" / "Dockerfile",
            INFRA / "README.md",
            *Path(ROOT, "docs").glob("*.md"),
        ]
        for tag in re.findall(r"stylemill-[cg]pu:([0-9][\w.-]*)", path.read_text())
    }
    assert tags == {PROJECT["version"]}


def test_no_image_floats():
    images = re.findall(r"^\s*(?:- )?image: (\S+)", "\n".join(path.read_text() for path in yaml_files()), re.MULTILINE)
    assert images
    for image in images:
        assert re.search(r":[^:/]*\d[^:/]*$", image) and not image.endswith("latest"), image


def test_the_dockerfile_ends_without_root_and_without_an_index():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    final = next(stage for stage in stages if "AS final" in stage.splitlines()[0])
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE)[-1] == "1000:100"
    for target in ("cpu", "gpu"):
        assert f"FROM final AS {target}\n" in DOCKERFILE
    assert "ARG TORCH_INDEX\n" in DOCKERFILE
    assert not re.search(r"https?://", DOCKERFILE.partition("ARG RAY_IMAGE")[2])
    for copied in re.findall(r"^COPY --chown=\S+ (.+) \S+$", DOCKERFILE, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in (INFRA / "image" / "Dockerfile.dockerignore").read_text()


def entrypoints() -> list[tuple[str, str]]:
    found = []
    for path in sorted((KUBERNETES / "jobs").glob("*.yaml")):
        for document in read(path):
            spec = document.get("spec", {})
            spec = spec.get("jobTemplate", spec)
            if "entrypoint" in spec:
                found.append((path.name, spec["entrypoint"]))
    return found


@pytest.mark.parametrize(("file", "entrypoint"), entrypoints())
def test_entrypoints_parse(file: str, entrypoint: str, capsys: pytest.CaptureFixture[str]):
    program, script, flag, mounted = shlex.split(entrypoint)
    assert (program, flag) == ("python", "--config") and mounted.startswith("/etc/stylemill/")
    verb = Path(script).stem
    assert verb in cli.VERBS and (ROOT / "jobs" / f"{verb}.py").exists()
    # The image carries jobs/ in its working directory.
    assert script == f"/home/ray/jobs/{verb}.py"
    assert DOCKERFILE.rindex("WORKDIR /home/ray\n") < DOCKERFILE.index("COPY --chown=1000:100 jobs jobs\n")
    settings = ROOT / "jobs" / "examples" / Path(mounted).name  # what the ConfigMap is made from
    assert main_for_scheduler([verb, "--config", str(settings), "--print-config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["out"].startswith("s3://CHANGE-ME/")


def test_entrypoints_read_settings_where_the_config_map_is_mounted():
    command = re.search(
        r"create configmap (\S+) --from-file=(\S+)", (KUBERNETES / "jobs" / "kustomization.yaml").read_text()
    )
    assert command is not None
    name, files = command[1], [path.name for path in (ROOT / command[2]).iterdir()]
    [cluster] = read(KUBERNETES / "base" / "ray-cluster.yaml")
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]
    volume = next(item for item in head["volumes"] if item.get("configMap", {}).get("name") == name)
    [mount] = [item for item in head["containers"][0]["volumeMounts"] if item["name"] == volume["name"]]
    for file, entrypoint in entrypoints():
        [read_there] = re.findall(re.escape(mount["mountPath"]) + r"/(\S+)", entrypoint)
        assert read_there in files, file


def ray_start_commands() -> list[tuple[str, list[str]]]:
    [cluster] = read(KUBERNETES / "base" / "ray-cluster.yaml")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    found = [
        (
            f"kuberay {group.get('groupName', 'head')}",
            [
                f"--{name}" if value == "true" else f"--{name}={value}"
                for name, value in group["rayStartParams"].items()
            ],
        )
        for group in groups
    ]
    found += [(f"compose {name}", COMPOSE["services"][name]["command"][2:]) for name in ("head", "worker")]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        found += [(f"aws {key}", shlex.split(line)[2:]) for line in AWS[key] if line.startswith("ray start")]
    return found


@pytest.mark.parametrize(
    ("where", "flags"), ray_start_commands(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_ray_start_takes_its_flags(where: str, flags: list[str]):
    from ray.scripts.scripts import start

    context = start.make_context("start", list(flags))  # parses; starts nothing
    is_head = "head" in where
    assert context.params["num_cpus"] == (0 if is_head else None)
    assert not context.args


def test_rays_launcher_accepts_the_aws_file():
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(AWS, schema)
    head = AWS["available_node_types"][AWS["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"] and head["resources"] == {"CPU": 0}
    assert AWS["available_node_types"]["cpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert all(item["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for item in all_types())
    assert "--dashboard-host=127.0.0.1" in AWS["head_start_ray_commands"][1]
    assert any("RAY_AUTH_MODE=token" in option for option in AWS["docker"]["run_options"])


def all_types() -> list[Manifest]:
    return list(AWS["available_node_types"].values())


def test_compose_opens_nothing_but_loopback_and_holds_no_secret():
    text = (INFRA / "laptop" / "compose.yaml").read_text()
    services = COMPOSE["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        for name, value in service["environment"].items():
            if re.search("KEY|SECRET|TOKEN|PASSWORD|ROOT_USER", name):
                assert value.startswith("${") and ":?" in value, f"{name} has a default"
    for service in ("bucket", "head", "worker"):
        assert services[service]["environment"]["RAY_AUTH_MODE"] == "token"
        for needed in services[service].get("depends_on", {}):
            assert needed in services
    build = services["head"]["build"]
    assert (INFRA / "laptop" / build["context"]).resolve() == ROOT and (ROOT / build["dockerfile"]).exists()
    assert f"FROM final AS {build['target']}" in DOCKERFILE and "TORCH_INDEX: ${TORCH_INDEX:-}" in text


def test_the_image_has_what_the_kubernetes_jobs_need_beyond_the_core():
    """Retraining compares with the packages of the extra evaluation; both stages of the image must agree."""
    extras = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(extras) == 2 and extras[0] == extras[1]
    assert "evaluation" in extras[0].split(",")


def test_the_photographs_of_phones_are_read_after_make_setup_and_in_the_image():
    setup = re.search(r"-e '\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text())
    image = re.search(r"^ARG EXTRAS=(.+)$", DOCKERFILE, re.MULTILINE)
    assert setup is not None and image is not None
    assert "heif" in setup[1].split(",") and "heif" in image[1].split(",")
    assert re.search(r"^pillow[-_]heif==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
