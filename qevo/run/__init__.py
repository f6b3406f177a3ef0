"""A whole run: configuration, pipeline, run folder."""

from qevo.run.config import RefineConfig, ShiftStageConfig, StageConfig, TrainConfig
from qevo.run.pipeline import run_once, run_pipeline
from qevo.run.seeds import run_seeds
from qevo.run.tracking import TensorBoard, to_tracker

__all__ = [
    "RefineConfig",
    "ShiftStageConfig",
    "StageConfig",
    "TensorBoard",
    "TrainConfig",
    "run_once",
    "run_pipeline",
    "run_seeds",
    "to_tracker",
]
