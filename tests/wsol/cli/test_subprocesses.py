"""Commands in processes of their own."""

import pytest

from wsol.cli.subprocesses import run_command


def test_a_command_runs_in_a_process_of_its_own(tmp_path):
    log = tmp_path / "logs" / "a.log"
    with pytest.raises(
        ValueError, match=r"train --config no failed: .*no configuration no.*a\.log"
    ):
        run_command("train", ["--config", "no"], log, at_once=2)
    command, *_, error = log.read_text().splitlines()
    assert command.startswith("$ ")
    assert "there is no configuration no" in error
