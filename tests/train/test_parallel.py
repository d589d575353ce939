"""Two real processes, started as torchrun starts them."""

import json
import subprocess
import sys

import pytest
import torch

from oasis_cli.checkpoints.format import describe
from oasis_cli.train.data import Batch
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import STATE, RunOptions
from oasis_cli.train.state import LAST

SCRIPT = """
import sys
from pathlib import Path
import torch
from oasis_cli.train import loop
from oasis_cli.train.data import Batch
from oasis_cli.train.options import RunOptions
from oasis_cli.train.parallel import leave
from oasis_cli.train.presets import read_config

data, whole, *folders = map(Path, sys.argv[1:])

def trainer(folder, **more):
    options = RunOptions(data=data, out=folder / "run", workers=1, **more)
    return loop.Trainer(read_config(str(folder / "toy.toml")), options, print)

def train(folder):
    run = trainer(folder, max_steps=3, log_every=1)
    keep, run.optimizer.step = run.optimizer.step, lambda rate: None
    run._step(Batch(*(part.chunk(run.world)[run.rank] for part in torch.load(whole))), 0.0)
    gradients = {n: p.grad.clone() for n, p in run.model.named_parameters()}
    if run.rank == 0:
        torch.save(gradients, folder / "gradients.pt")
    run.optimizer.step = keep
    run.model.zero_grad()
    first = run.pool.batch(0)[0]
    others = run.processes.sum(first.clone()) - first
    assert not torch.equal(first, others), "two processes drew the same clips"
    run.run()
    again = trainer(folder, max_steps=4, log_every=1, resume=True)
    assert again.step == 3
    again.run()
    weight = again.model.decoder.last.weight.detach().clone()
    mean = again.processes.sum(weight.clone()) / 2
    assert torch.equal(mean, weight), "the processes' weights drifted apart"

if __name__ == "__main__":
    codecs = loop.CodecPool(1)
    close, codecs.close = codecs.close, lambda: None
    loop.CodecPool = lambda workers: codecs  # starting one costs more than a toy run
    for folder in folders:
        train(folder)
    close()
    leave()
"""


@pytest.fixture(scope="module")
def whole():
    """A batch, for one process or in halves for two."""
    low, high = torch.rand(2, 4, 5, 3, 32, 32) * 2 - 1
    return Batch(low, high, torch.zeros(4, 4, 2, 8, 8))


@pytest.fixture(scope="module")
def runs(toy_text, whole, footage_folder, tmp_path_factory):
    """The folder of a run of two processes for `shard` False and True."""
    top = tmp_path_factory.mktemp("parallel")
    torch.save(list(whole), top / "whole.pt")
    (top / "script.py").write_text(SCRIPT)
    found = {shard: top / str(shard) for shard in (False, True)}
    for shard, folder in found.items():
        (folder / "run").mkdir(parents=True)
        (folder / "toy.toml").write_text(f"shard = {str(shard).lower()}\n{toy_text}")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--local-addr", "127.0.0.1", "--nproc-per-node", "2", top / "script.py"]
    paths = [footage_folder, top / "whole.pt", *found.values()]
    ran = subprocess.run(
        [*launch, *paths], capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    # One process speaks: start and resume of both.
    assert ran.stdout.count("footage: 3 photographs") == 4
    return found


@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_train_as_one_with_the_whole_batch(
    shard, runs, whole, toy, footage_folder, tmp_path
):
    out = runs[shard] / "run"
    options = RunOptions(data=footage_folder, out=tmp_path / "one", max_steps=3, workers=1)
    one = Trainer(toy, options, lambda text: None)
    one.optimizer.step = lambda rate: None
    one._step(whole, 0.0)
    found = torch.load(runs[shard] / "gradients.pt")
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    moments = torch.load(out / STATE, weights_only=True)["optimizer"][0]["state"]
    assert len(moments) == len(list(one.model.parameters()))  # every process's part
    assert describe(str(out / LAST))["provenance"]["processes"] == 2
