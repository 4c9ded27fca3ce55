"""What ``ray_internals`` relies on is in the installed Ray. A failure here after an upgrade says what to adapt."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import ray._private.node
import ray._private.services
import ray._private.state
import ray.data._internal.util
import ray.exceptions
from ray._private.authentication.http_token_authentication import format_authentication_http_error
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.data._internal.execution.operators import map_operator
from ray.train.torch.config import TorchConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from stylemill import ray_internals
from stylemill.errors import ClusterError, ConfigError, ImageError
from stylemill.ray_internals import (
    DASHBOARD_LOGGERS,
    START_SCRIPT,
    DashboardClient,
    TorchBackend,
    has_start_timed_out,
    is_cluster_of_this_process,
    is_token_missing,
    keep_interrupts,
    leave_out_blind_cleaner,
    ray_failure,
    unwrap,
)
from stylemill.training.train import POLL_VARIABLE


def source_of(module: object) -> str:
    return inspect.getsource(module)  # type: ignore[arg-type]


def test_the_clusters_configuration_is_readable():
    assert "ClusterConfig" in source_of(type(ray._private.state.state).get_cluster_config)
    assert list(ClusterConfig().node_group_configs) == []
    group = NodeGroupConfig(resources={"CPU": 4}, max_count=2)
    assert dict(group.resources) == {"CPU": 4} and group.max_count == 2


def test_the_trainer_s_handler_of_ctrl_c_can_be_left_out():
    assert "self._register_sigint_handler(controller)" in source_of(DataParallelTrainer)
    trainer = SimpleNamespace(_register_sigint_handler=None)
    before = signal.getsignal(signal.SIGINT)
    keep_interrupts(trainer)
    trainer._register_sigint_handler("controller")
    assert signal.getsignal(signal.SIGINT) is before


def test_how_often_the_controller_looks_at_workers_is_taken_from_the_driver():
    from ray.train.v2._internal import constants

    assert constants.HEALTH_CHECK_INTERVAL_S_ENV_VAR == POLL_VARIABLE
    assert POLL_VARIABLE in constants.ENV_VARS_TO_PROPAGATE


@pytest.mark.parametrize("dashboard", ["", "10.0.0.1:8265"])
def test_the_trainer_s_cleaner_is_left_out_where_there_is_no_dashboard(dashboard: str, monkeypatch: pytest.MonkeyPatch):
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller.placement_group_cleaner import PlacementGroupCleaner

    source = source_of(DataParallelTrainer)
    assert "callbacks=self._create_default_callbacks()" in source and "PlacementGroupCleanerCallback()" in source
    assert "is_actor_alive(" in source_of(PlacementGroupCleaner)
    monkeypatch.setattr("ray._private.worker.get_dashboard_url", lambda: dashboard)
    callbacks = [PlacementGroupCleanerCallback(), object()]
    trainer = SimpleNamespace(_create_default_callbacks=lambda: list(callbacks))
    leave_out_blind_cleaner(trainer)
    assert trainer._create_default_callbacks() == (callbacks if dashboard else callbacks[1:])


def test_the_torch_backend_is_what_torch_config_returns():
    assert issubclass(TorchConfig().backend_cls, TorchBackend)
    assert "worker_group" in inspect.signature(TorchBackend.on_start).parameters


def test_every_request_of_the_job_client_takes_a_time_limit():
    assert DashboardClient._do_request is not SubmissionClient._do_request
    assert "self._do_request(" in source_of(ray.job_submission.JobSubmissionClient)
    kinds = [one.kind for one in inspect.signature(SubmissionClient._do_request).parameters.values()]
    assert inspect.Parameter.VAR_KEYWORD in kinds
    assert "requests.request(" in source_of(SubmissionClient._do_request)


def test_the_loggers_of_the_job_client_exist():
    for name in DASHBOARD_LOGGERS[:2]:
        module = __import__(name, fromlist=["logger"])
        assert module.logger.name == name
    assert ray._private.services.logger.name.startswith(DASHBOARD_LOGGERS[2])


def test_the_texts_stand_in_rays_source():
    # Ray Data puts "Failed to {description} after" and the description together.
    assert ray_internals._UDF_ADVICE == "\nFailed to apply UDF transform after "
    assert 'description="apply UDF transform"' in source_of(map_operator)
    assert 'f"Failed to {description} after' in source_of(ray.data._internal.util)
    assert ray_internals._START_TIMED_OUT in source_of(ray._private.node)
    assert has_start_timed_out(Exception(f"The current node {ray_internals._START_TIMED_OUT}. This could happen"))
    asked = ray.exceptions.AuthenticationError(format_authentication_http_error(401, "no token") or "")
    refused = ray.exceptions.AuthenticationError(format_authentication_http_error(403, "wrong token") or "")
    assert is_token_missing(asked) and not is_token_missing(refused)


def test_the_start_script_finds_what_ray_sets():
    assert "--python_worker_command=" in START_SCRIPT
    assert "--python_worker_command=" in source_of(ray._private.services)
    assert "RAY_RAYLET_PID" in Path(ray._private.ray_constants.__file__).read_text()


def test_errors_of_this_project_come_out_of_rays():
    own = ImageError("Truncated", "it ends early")
    assert unwrap(own, doing="painting").args == own.args
    wrapped = ray.exceptions.RayTaskError("paint", "a traceback", own).as_instanceof_cause()
    found = unwrap(wrapped, doing="painting")
    assert type(found) is ImageError and found.args == own.args
    group = type("TrainingFailedError", (RuntimeError,), {"worker_failures": {1: wrapped}})("failed")
    assert type(unwrap(group, doing="training")) is ImageError


def test_rays_advice_is_taken_off_the_message():
    own = ConfigError("out", "x", "is wrong" + ray_internals._UDF_ADVICE + "3 attempts", "choose another")
    found = unwrap(own, doing="painting")
    assert isinstance(found, ConfigError) and found.problem == "is wrong"


def test_a_failure_of_ray_is_one_line():
    found = unwrap(ray.exceptions.OutOfMemoryError("it\n\nis gone"), doing="painting")
    assert isinstance(found, ClusterError) and str(found).startswith("painting stopped: OutOfMemoryError: ")
    assert "\n" not in str(found)


def test_workers_without_room_say_so():
    error = RuntimeError("failed")
    error.controller_failure = WorkerGroupStartupTimeoutError(2)  # type: ignore[attr-defined]
    assert "had no room" in str(unwrap(error, doing="training"))


def test_a_defect_keeps_its_traceback():
    defect = KeyError("nothing")
    assert unwrap(defect, doing="painting") is defect
    task = ray.exceptions.RayTaskError("paint", "a traceback", defect)
    assert unwrap(task, doing="painting") is task


@pytest.mark.parametrize("groups", [None, SimpleNamespace(node_group_configs=())])
def test_machines_of_a_cluster_without_an_autoscaler(groups: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray._private.state.state, "get_cluster_config", lambda: groups)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    assert ray_internals.cluster_machines() == [{"CPU": 2.0}]


def test_sessions_and_job_commands_do_not_load_torch():
    code = "import sys, stylemill.ray_internals; sys.exit('torch' in sys.modules or 'ray.train' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failure_of_training_is_always_one_line():
    defect = ray.exceptions.RayTaskError("controller", "a traceback\n\nRuntimeError: no", RuntimeError("no"))
    found = ray_failure(defect, doing="training")
    assert isinstance(found, ClusterError) and str(found).startswith("training stopped: RayTaskError")
    assert "\n" not in str(found) and "resume" in str(found)


def test_without_a_cluster_none_is_of_this_process():
    assert not is_cluster_of_this_process()
    assert callable(ray._private.node.Node.is_head)
