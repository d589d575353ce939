"""The same job on a Ray cluster: three nodes on this machine, one of which dies."""

import hashlib
import json
import os
from pathlib import Path

import av
import pytest

import oasis_cli
import oasis_cli.jobs.cluster
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.jobs.job import folder_for
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

PACKAGE = Path(oasis_cli.__file__).parents[1]
"""Where the nodes find the same program."""

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "node_ip_address": "127.0.0.1"}

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or Ray goes where others reach it
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")


def go(source, target, weights, jobs, report=None, **more):
    options = Options(scale=2, windows=WindowOptions(frames=5, overlap=2), model=str(weights),
                      encode=EncodeOptions(preset="veryfast"), **more)  # fmt: skip
    plan = make_plan(probe(source), str(target), options)
    return carry_out(plan, jobs, report or (lambda event: None), Stop())


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("shared", [True, False])
def test_a_cluster_makes_the_same_and_survives_the_loss_of_a_node(
    cluster, shared, make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), str(PACKAGE)]))
    source = make_clip(frames=60, cuts=(22,), size=(64, 48))
    plan = {"resume": True, "segment_frames": 6}
    go(source, tmp_path / "one.mp4", tiny_weights, JobOptions(**plan))
    if not shared:
        monkeypatch.setattr("oasis_cli.jobs.cluster._all_nodes_see", lambda *args: False)
    nodes = [cluster.add_node(**NODE) for _ in range(2)]
    lost = []

    def report(event):
        if event["event"] == "progress" and not lost:
            own = ray.get_runtime_context().get_node_id()  # this process talks to one of them
            lost.append(next(node for node in nodes if node.node_id != own))
            cluster.remove_node(lost[0], allow_graceful=False)

    jobs = JobOptions(**plan, engine="ray", address=cluster.address)
    result = go(source, tmp_path / "two.mp4", tiny_weights, jobs, report)

    assert result.frames == 60 and lost
    frames = [
        [hashlib.md5(f.tobytes()).hexdigest() for f in look.frames(tmp_path / name)]
        for name in ("one.mp4", "two.mp4")
    ]
    assert frames[0] == frames[1]
    assert look.audio(tmp_path / "two.mp4") == look.audio(source)
    assert not folder_for(str(tmp_path / "two.mp4"), None).exists()


def test_a_head_table_travels_to_the_nodes(
    cluster, make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    """It is gone from its path before a node is asked."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), str(PACKAGE)]))
    source, heads = make_clip(frames=12, size=(64, 48)), tmp_path / "table.json"
    model = {"name": "tiny", "sha256": sha256(tiny_weights)}
    table = {"schema": "asr-table/1", "model": model, "window": [3, 5, 5]}
    heads.write_text(json.dumps(table | {"layers": [{"group": ["w", "i"]}]}))
    plan = {"resume": True, "segment_frames": 6}
    go(source, tmp_path / "one.mp4", tiny_weights, JobOptions(**plan), heads=str(heads))
    pack = oasis_cli.jobs.cluster._pack

    def packed(*given):
        task = pack(*given)
        heads.unlink()
        return task

    monkeypatch.setattr("oasis_cli.jobs.cluster._pack", packed)
    jobs = JobOptions(**plan, engine="ray", address=cluster.address)
    go(source, tmp_path / "two.mp4", tiny_weights, jobs, heads=str(heads))
    frames = [[f.tobytes() for f in look.frames(tmp_path / n)] for n in ("one.mp4", "two.mp4")]
    assert frames[0] == frames[1]


def test_a_cluster_that_is_not_there(make_clip, tiny_weights, tmp_path):
    source, target = make_clip(frames=12, size=(64, 48)), tmp_path / "out.mp4"
    jobs = JobOptions(resume=True, segment_frames=6, engine="ray", address="127.0.0.1:1")
    with pytest.raises(OasisError, match="no Ray cluster"):
        go(source, target, tiny_weights, jobs)
    assert folder_for(str(target), None).exists()
    assert go(source, target, tiny_weights, JobOptions()).frames == 12


@pytest.mark.parametrize("shared", [True, False])
def test_pictures_are_read_where_every_node_has_them_and_refused_elsewhere(
    cluster, shared, make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), str(PACKAGE)]))
    monkeypatch.chdir(tmp_path)
    with av.open("f_%03d.png", "w", format="image2") as out:
        stream = out.add_stream("png", rate=25, width=64, height=48, pix_fmt="rgb24")
        for frame in look.frames(make_clip(frames=12, size=(64, 48))):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    jobs = JobOptions(resume=True, segment_frames=6, engine="ray", address=cluster.address)
    if shared:
        assert go("f_%03d.png", tmp_path / "out.mkv", tiny_weights, jobs).frames == 12
        return
    monkeypatch.setattr("oasis_cli.jobs.cluster._all_nodes_see", lambda *args: False)
    with pytest.raises(MediaError, match="pictures do not travel"):
        go("f_%03d.png", tmp_path / "out.mkv", tiny_weights, jobs)
