"""A whole run: configuration, pipeline, run folder."""

from qevo.run.config import RefineConfig, ShiftStageConfig, StageConfig, TrainConfig
from qevo.run.pipeline import run_once, run_pipeline

__all__ = [
    "RefineConfig",
    "ShiftStageConfig",
    "StageConfig",
    "TrainConfig",
    "run_once",
    "run_pipeline",
]
