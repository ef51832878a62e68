"""One file for each stage kind; each registers itself with `pipelines.stage.register`."""
