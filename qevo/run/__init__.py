"""A whole run: configuration, pipeline, run folder."""

from qevo.run.config import StageConfig, TrainConfig
from qevo.run.pipeline import train, train_once

__all__ = ["StageConfig", "TrainConfig", "train", "train_once"]
