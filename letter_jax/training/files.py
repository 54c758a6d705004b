"""The names of what a training leaves in its folder; `workdir.py` knows them from here."""

TRAINING_LOG = 'metrics.jsonl'
TENSORBOARD = 'tensorboard'
CHECKPOINTS = 'checkpoints'
LATEST, BEST = 'latest', 'best'  # folders of checkpoints
