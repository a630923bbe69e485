"""What people type leads to commands and flags that exist."""

from __future__ import annotations

from fastgen.cli import meant, panels
from tests.cli.test_help import APP


def test_what_people_type_leads_to_commands_and_flags_that_exist():
    assert set(meant.COMMANDS.values()) <= {name for names in panels.COMMANDS.values() for name in names}
    own = {flag for command in APP.commands.values() for p in command.params for flag in p.opts}
    assert {flag.split()[0] for flags in meant.FLAGS.values() for flag in flags} <= own
    assert not set(meant.FLAGS) & own - {"--format", "--count", "--cpu"}, "those are flags of another command"
