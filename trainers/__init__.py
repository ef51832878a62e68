"""Changes weights: model loading, supervised fine-tuning, checkpoints."""
