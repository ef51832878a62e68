"""Online reinforcement learning: the loop that joins engine, verifier and trainer, which do not know each other."""
