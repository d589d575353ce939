"""What a run leaves, and how it goes on."""

import dataclasses
import json
import math
import subprocess
import sys
import time

import pytest
import torch

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.train.options import STATE


def test_five_steps_and_five_more_equal_ten(toy, footage_folder, tmp_path, trainer):
    whole = trainer(toy, footage_folder, tmp_path / "whole")
    whole.run()

    # Progress counts towards the same ten steps; the first part is stopped after five.
    part = trainer(toy, footage_folder, tmp_path / "part")
    part._progress = lambda: 1.0 if part.step >= 5 else part.step / 10
    part.run()
    rest = trainer(toy, footage_folder, tmp_path / "part", resume=True)
    assert rest.step == 5
    rest.run()

    assert rest.model.dit.table == whole.model.dit.table
    for one, other in ((rest.model, whole.model), (rest.average, whole.average)):
        for name, tensor in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], tensor), name


def test_a_run_killed_at_any_time_resumes_from_its_last_state(
    toy, footage_folder, tmp_path, trainer
):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    before = (out / STATE).read_bytes()
    config = tmp_path / "toy.toml"
    script = f"""
from pathlib import Path
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import read_config
if __name__ == "__main__":
    options = RunOptions(data=Path({str(footage_folder)!r}), out=Path({str(out)!r}), resume=True,
                         max_steps=100000, workers=1, save_minutes=0.0)
    Trainer(read_config({str(config)!r}), options, lambda text: None).run()
"""
    path = tmp_path / "run.py"
    path.write_text(script)
    run = subprocess.Popen([sys.executable, str(path)])
    deadline = time.monotonic() + 60
    while (out / STATE).read_bytes() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    run.kill()
    run.wait()

    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step > 2
    again.pool.codecs.close()


def test_weights_that_are_no_numbers_are_never_saved(toy, footage_folder, tmp_path, trainer):
    """Saved after every step, the state on disk is the last good one, and can be resumed."""
    out = tmp_path / "run"
    run = trainer(toy, footage_folder, out, save_minutes=0.0)
    step = run._step

    def fails_at_the_seventh(batch, progress):
        if run.step == 7:
            batch = batch._replace(low=batch.low * math.nan)
        return step(batch, progress)

    run._step = fails_at_the_seventh
    with pytest.raises(OasisError, match="loss of step 7 is not a finite number") as caught:
        run.run()
    assert "holds step 7, which was good" in caught.value.hint
    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step == 7
    assert all(p.isfinite().all() for p in again.model.parameters())
    again.run()


def test_a_run_goes_on_after_a_release_that_added_settings(toy, footage_folder, tmp_path, trainer):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    state = torch.load(out / STATE)
    config = json.loads(state["config"])
    del config["adversarial_rise"], config["data"]["cuts"]
    del config["stages"][1]["losses"]["excess"]
    torch.save(state | {"config": json.dumps(config)}, out / STATE)
    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step == 2
    again.pool.codecs.close()
    changed = dataclasses.replace(toy, adversarial_rise=64)  # not what the older release did
    with pytest.raises(UsageError, match="another configuration: adversarial_rise"):
        trainer(changed, footage_folder, out, resume=True)


def test_resuming_another_configuration_is_refused(toy, footage_folder, tmp_path, trainer):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    other = dataclasses.replace(toy, seed=5)
    with pytest.raises(UsageError, match="another configuration: seed"):
        trainer(other, footage_folder, out, resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        trainer(toy, footage_folder, tmp_path / "empty", resume=True)
