"""Makes rows: problems, prompts, sampling engines, selection."""
