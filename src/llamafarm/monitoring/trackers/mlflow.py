"""MLflow."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping

from llamafarm.monitoring.trackers.tracker import PROJECT, RunFacts

_RUN_ID = "llamafarm.run_id"
# Of one request, and of one value: MLflow's REST API.
_MOST_PARAMETERS, _LONGEST_PARAMETER, _LONGEST_TAG = 100, 6000, 5000
_STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; a resumed run is found by its tag."""

    def __init__(self, facts: RunFacts) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        earlier = self._earlier_run(place, facts)
        if earlier:
            self._run_id = earlier
            self._client.update_run(earlier, status="RUNNING")
            return
        run = self._client.create_run(place, run_name=facts.name, tags={_RUN_ID: facts.id})
        self._run_id = run.info.run_id
        given = [Param(k, str(v)[:_LONGEST_PARAMETER]) for k, v in facts.config.items()]
        for first in range(0, len(given), _MOST_PARAMETERS):
            self._client.log_batch(self._run_id, params=given[first : first + _MOST_PARAMETERS])

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As Tracker. A value that is no number is left out: not every store of MLflow takes it."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(k, float(v), now, step) for k, v in values.items() if math.isfinite(v)]
        self._client.log_batch(self._run_id, metrics=metrics)

    def tell(self, name: str, text: str) -> None:
        """As Tracker: a tag."""
        self._client.set_tag(self._run_id, name, text[:_LONGEST_TAG])

    def finish(self, status: str, results: Mapping[str, float]) -> None:
        """As Tracker."""
        for name, value in results.items():
            if math.isfinite(value):
                self._client.log_metric(self._run_id, name, float(value))
        self._client.set_terminated(self._run_id, _STATUS.get(status, "FAILED"))

    def _earlier_run(self, experiment: str, facts: RunFacts) -> str:
        if not facts.resumed:
            return ""
        wanted = facts.id.replace("'", "\\'")
        found = self._client.search_runs([experiment], f"tags.`{_RUN_ID}` = '{wanted}'")
        return found[0].info.run_id if found else ""
