"""The training loop and what it needs: settings, batches, checkpoints, interrupts, checks, logs."""

from robust_training.training.schedule import Cosine, Schedule, Steps
from robust_training.training.settings import TrainingSettings

__all__ = ["Cosine", "Schedule", "Steps", "TrainingSettings"]
