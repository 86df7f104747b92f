"""What the events of a run mean: findings, each with its evidence and what to do about it."""

from llamafarm.monitoring.diagnosis.diagnose import Diagnosis as Diagnosis
from llamafarm.monitoring.diagnosis.diagnose import diagnose as diagnose
