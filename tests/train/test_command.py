"""`oasis train` as a user types it."""

import pytest
from typer.testing import CliRunner

from oasis_cli.cli.main import app
from oasis_cli.media.training import read_clip
from oasis_cli.train.__main__ import main


def run(*args):
    return CliRunner().invoke(app, ["train", *map(str, args)])


def test_a_run_from_the_command_line(toy_file, footage_folder, tmp_path):
    out = tmp_path / "run"
    command = [toy_file, "--data", footage_folder, "--out", out, "--workers", 1]
    first = run(*command, "--max-steps", 3)
    assert first.exit_code == 0, first.output
    assert "3 photographs" in first.output
    assert (out / "last.safetensors").exists()

    again = run(*command, "--max-steps", 3)
    assert again.exit_code == 2 and "holds a run" in again.output


def test_a_contact_sheet(toy_file, footage_folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    result = run(toy_file, "--data", footage_folder, "--sheet", sheet)
    assert result.exit_code == 0, result.output
    assert read_clip(sheet).shape == (1, 16 * 48, 4 * 48, 3)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "either a CONFIG.toml or --preset"),
        (["--preset", "small"], "a run needs an end"),
        (["--preset", "huge"], "no preset"),
        (["--preset", "small", "--max-steps", "1"], "no file was given for it"),
    ],
)
def test_wrong_usage_is_one_sentence(args, sentence, footage_folder, tmp_path):
    result = run(*args, "--data", footage_folder, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_torchruns_way_in_trains_and_says_what_is_wrong(
    toy_file, footage_folder, tmp_path, monkeypatch, capsys
):
    words = [str(toy_file), "--data", str(footage_folder), "--out", str(tmp_path / "run")]
    far = ["--max-steps", "1", "--device", "xpu:9"]
    for more, code in (["--max-steps", "1"], 0), ([], 2), ([*far, "--resume"], 2):
        monkeypatch.setattr("sys.argv", ["train", *words, *more])
        assert main() == code
    assert (tmp_path / "run" / "last.safetensors").exists()
    said = capsys.readouterr().err
    assert "error: a run needs an end\nhint:  pass --max-minutes" in said
    assert "error: there is no xpu:9" in said
