"""What the import reads, and what it refuses and how."""

import json
import os
import pickle
import resource
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import describe, load_model
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.cli.main import app

LOOSE = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def run(tmp_path):
    """Import something; returns the result, with `said` on one line."""

    def run(*args):
        out = tmp_path / "out.safetensors"
        result = CliRunner().invoke(app, ["weights", "import", *map(str, args), "-o", str(out)])
        result.said = " ".join(result.output.split())
        assert (result.exit_code == 0) == out.exists()
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
        return result

    return run


@pytest.fixture
def changed(published, tmp_path):
    """changed(layout, **tensors): the transformer's file with these replaced, None for removed."""

    def changed(layout, tensors):
        source = {"original": published.original, "diffusers": published.diffusers / "transformer"}
        folder = tmp_path / "changed"
        folder.mkdir()
        shutil.copy(source[layout] / "config.json", folder)
        state = load_file(source[layout] / LOOSE) | tensors
        save_file({name: x for name, x in state.items() if x is not None}, folder / LOOSE)
        return folder / LOOSE

    return changed


def test_shards_are_read_through_their_index(wan, published, run, tmp_path):
    folder = tmp_path / "shards"
    wan.transformer.save_pretrained(folder, max_shard_size="60KB")
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert len(shards) > 2
    for source in (folder, folder / (LOOSE + ".index.json")):
        result = run(source, "--vae", published.diffusers / "vae")
        assert result.exit_code == 0, result.output
        about = describe(str(tmp_path / "out.safetensors"))
        sums = about["provenance"]["sources"]["transformer"]["sha256"]
        assert sums == {shard.name: sha256(shard) for shard in shards}
        (tmp_path / "out.safetensors").unlink()
    shards[1].unlink()
    refused = run(folder)
    assert refused.exit_code == 1 and shards[1].name in refused.said


def test_half_precision_files_become_float32(published, changed, run, tmp_path):
    state = load_file(published.original / LOOSE)
    path = changed("original", {name: x.bfloat16() for name, x in state.items()})
    assert run(path).exit_code == 0
    stored = load_file(tmp_path / "out.safetensors")["dit.head.weight"]
    assert torch.equal(stored, state["head.head.weight"].bfloat16().float())


@pytest.mark.parametrize(
    ("layout", "tensors", "sentences"),
    [
        ("original", {"img_emb.proj.0.bias": torch.zeros(3)}, ["1 unknown (img_emb.proj.0.bias)"]),
        (
            "diffusers",
            {"blocks.0.attn2.to_q.bias": None},
            ["1 missing (blocks.0.cross_attn.q.bias)"],
        ),
        (
            "diffusers",
            {
                "proj_out.bias": torch.zeros(5),
                "blocks.1.scale_shift_table": None,
                "x": torch.ones(1),
            },
            [
                "besides 67 of 69 tensors",
                "1 unknown (x)",
                "1 missing (blocks.1.modulation)",
                "1 of another shape (proj_out.bias is (5,) instead of (64,))",
            ],
        ),
        (
            "original",
            {"head.head.bias": torch.full((64,), torch.nan)},
            ["head.head.bias", "finite"],
        ),
        ("original", {"head.head.bias": torch.ones(64).int()}, ["head.head.bias", "torch.int32"]),
    ],
)
def test_a_transformer_that_does_not_fit_is_refused_by_name(
    layout, tensors, sentences, changed, run
):
    result = run(changed(layout, tensors))
    assert result.exit_code == 1
    for sentence in sentences:
        assert sentence in result.said


def test_without_a_config_the_published_size_is_expected(published, run, tmp_path):
    shutil.copy(published.original / LOOSE, tmp_path / LOOSE)
    result = run(tmp_path / LOOSE)
    assert result.exit_code == 1
    assert "of 825 tensors" in result.said and "blocks.10.cross_attn.k.bias" in result.said
    assert "and 744 more" in result.said and "instead of (8960, 1536)" in result.said


def test_a_config_that_makes_no_sense_is_refused(changed, run):
    path = changed("original", {})
    config = json.loads((path.parent / "config.json").read_text())
    (path.parent / "config.json").write_text(json.dumps(config | {"num_heads": 5}))
    result = run(path)
    assert result.exit_code == 1 and "48 does not split into 5" in result.said


def test_an_autoencoder_that_does_not_fit_is_refused_by_name(published, run, tmp_path):
    state = torch.load(published.original / "Wan2.1_VAE.pth", weights_only=True)
    del state["decoder.head.2.bias"]
    torch.save(state | {"extra": torch.ones(1)}, tmp_path / "vae.pth")
    result = run(published.original, "--vae", tmp_path / "vae.pth")
    assert result.exit_code == 1
    assert "1 unknown (extra)" in result.said and "1 missing (decoder.head.2.bias)" in result.said


def test_a_tiny_decoder_that_does_not_fit_is_refused_by_name(published, run, tmp_path):
    state = torch.load(published.tiny, weights_only=True)
    del state["decoder.22.bias"]
    torch.save(state, tmp_path / "taew2_1.pth")
    result = run(published.original, "--tiny-decoder", tmp_path / "taew2_1.pth")
    assert result.exit_code == 1
    assert "127 of 128" in result.said and "1 missing (decoder.22.bias)" in result.said


class Program:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_holds_a_program_does_not_run_it(published, run, tmp_path):
    trap = tmp_path / "trap"
    torch.save({"x": Program(str(trap))}, tmp_path / "zip.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"x": Program(str(trap))}, 2))
    for name in ("zip.pth", "old.pth"):
        result = run(published.original, "--vae", tmp_path / name)
        assert result.exit_code == 1 and "was not opened" in result.said
        assert not trap.exists()


def test_what_is_not_a_file_of_tensors_is_refused(published, run, tmp_path):
    whole = (published.original / LOOSE).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    cut = (published.original / "Wan2.1_VAE.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(cut[: len(cut) // 2])
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "index.safetensors.index.json").write_text("[]")
    for name, sentence, code in (
        ("cut.safetensors", "not a whole .safetensors file", 1),
        ("cut.pth", "not a whole torch file", 1),
        ("list.pth", "does not hold tensors by name", 1),
        ("text.txt", "no file of tensors", 2),
        ("index.safetensors.index.json", "not an index of shards", 1),
        ("missing.safetensors", "no file or folder called", 2),
    ):
        result = run(tmp_path / name)
        assert result.exit_code == code and sentence in result.said, (name, result.said)


def test_a_folder_without_or_with_too_many_is_refused(published, run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no transformer" in run(tmp_path / "empty").said
    assert "holds no autoencoder" in run(published.original, "--vae", tmp_path / "empty").said
    for name in ("", ".fp16"):
        path = tmp_path / "empty" / f"diffusion_pytorch_model{name}.safetensors"
        shutil.copy(published.original / LOOSE, path)
    result = run(tmp_path / "empty")
    assert result.exit_code == 2 and "name one of them" in result.said


def test_an_end_of_sentence_file_holds_one_row(published, run, tmp_path):
    save_file({"a": torch.ones(2, 20)}, tmp_path / "two.safetensors")
    result = run(published.original, "--eos", tmp_path / "two.safetensors")
    assert result.exit_code == 1 and "one encoded token of 20 numbers" in result.said
    assert run(published.original, "--eos", tmp_path / "none.pth").exit_code == 2


def test_sums_that_are_asked_for_must_be_there(published, run, tmp_path):
    right = sha256(published.original / LOOSE)
    wrong = "0" * 64
    result = run(published.original, "--sha256", right, "--sha256", wrong)
    assert result.exit_code == 1 and f"no file has the SHA-256 {wrong}" in result.said
    assert f"{LOOSE} {right}" in result.said
    vae = sha256(published.original / "Wan2.1_VAE.pth")
    result = run(published.original, "--sha256", right.upper(), "--sha256", vae)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_sum_may_be_of_any_part_though_files_have_one_name(part, published, run):
    result = run(published.diffusers, "--sha256", sha256(published.diffusers / part / LOOSE))
    assert result.exit_code == 0, result.output


def test_a_full_disk_ends_clearly_and_leaves_nothing(published, run):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        result = run(published.original)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1 and "cannot be written" in result.said


def test_an_existing_target_is_kept(published, tmp_path):
    target = tmp_path / "precious.safetensors"
    target.write_bytes(b"precious")
    command = ["weights", "import", str(published.original), "-o", str(target)]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 1 and "already there" in refused.output
    assert target.read_bytes() == b"precious"
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
    load_model(str(target))


@pytest.fixture
def cache(published, tmp_path, monkeypatch):
    """The hub's cache with the repository some/wan in it; returns the folder of its blobs."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub" / "models--some--wan"
    snapshot = home / "snapshots" / ("c0ffee" * 7)[:40]
    for folder in (home / "refs", home / "blobs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(snapshot.name)
    for file in published.original.iterdir():
        blob = home / "blobs" / sha256(file)
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(blob)
    return home / "blobs"


def test_a_name_on_the_hub_comes_from_the_cache_offline(cache, published, run, tmp_path):
    result = run("some/wan", "--offline")
    assert result.exit_code == 0, result.output
    sources = describe(str(tmp_path / "out.safetensors"))["provenance"]["sources"]
    assert sources["transformer"]["from"].startswith("some/wan@c0ffee")
    assert sources["transformer"]["sha256"] == {LOOSE: sha256(published.original / LOOSE)}


def test_a_damaged_file_in_the_cache_is_refused(cache, published, run):
    blob = cache / sha256(published.original / LOOSE)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    result = run("some/wan", "--offline")
    assert result.exit_code == 1 and "is damaged: its SHA-256" in result.said


def test_a_name_that_is_not_in_the_cache_is_one_sentence_offline(cache, run):
    for name in ("some/other", "some/wan@v2"):
        result = run(name, "--offline")
        assert result.exit_code == 1
        assert f"{name} is not in the hub's cache" in result.said
