"""Weights & Biases, MLflow and trackio, where `report_to` names them.

A tracker reads `metrics.jsonl` in a process of its own: what its client prints, waits for, starts
or breaks is then nothing to the training.
"""

from llamafarm.monitoring.trackers.sink import TrackerSink as TrackerSink
from llamafarm.monitoring.trackers.sink import require_trackers as require_trackers
