"""Runs everything: plan, stages, artefact store, executors, evaluation, command line."""
