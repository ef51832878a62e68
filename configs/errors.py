"""Errors that end a command, each with the exit code that the command line promises.

1: something failed while running. 2: the config or the input is wrong. 130: interrupted.
A message names the file, line or key at fault and the way out.
"""

from __future__ import annotations


class RatchetError(Exception):
    """A failure with a message meant for the user; exit code 1."""

    exit_code = 1


class ConfigError(RatchetError):
    """The recipe or an override is wrong; exit code 2."""

    exit_code = 2


class InputError(RatchetError):
    """A data file, a model folder or a run folder is not usable; exit code 2."""

    exit_code = 2


class Interrupted(RatchetError):
    """The user pressed Ctrl-C; exit code 130."""

    exit_code = 130
