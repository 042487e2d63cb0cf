"""Adds `kind` to `optimum-cli export`: in the wheel this file is optimum/commands/register/register_kind.py.

optimum loads every file of that namespace when its command line starts.
"""

from optimum.commands.export.base import ExportCommand

from kind_export.optimum_command import KindExportCommand

REGISTER_COMMANDS = [(KindExportCommand, ExportCommand)]
