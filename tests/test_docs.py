"""Every command and example of the documentation runs: on a short sample, with a toy model."""

import importlib.util
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.run import upscale

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (run|not run: [^\n]+) -->\n)?```(sh|python)\n(.*?)```", re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
MODULE = re.compile(r"(?<!\[)`([\w/]+\.py)`")


def bicubic(low, size, tile=None):
    from oasis_cli.model.latent import bicubic_upsample

    return bicubic_upsample(low, size)


@pytest.fixture(scope="module")
def short_sample(tmp_path_factory):
    """The sample's first 26 frames at a fifth of its size, with sound and subtitles."""
    path = tmp_path_factory.mktemp("sample") / "demo.mp4"
    small = tmp_path_factory.mktemp("small") / "demo.mp4"
    import av

    with av.open(ROOT / "samples" / "demo.mp4") as source, av.open(small, "w") as target:
        video = target.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 36, "yuv420p"
        sound = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size and packet.pts < 48000:
                packet.stream = sound
                target.mux(packet)
        source.seek(0)
        for number, frame in enumerate(source.decode(video=0)):
            if number < 26:
                target.mux(video.encode(frame.reformat(64, 36, "yuv420p")))
        target.mux(video.encode(None))
    options = Options(scale=1, encode=EncodeOptions(), read=ReadOptions())
    upscale(small, path, options, model=bicubic)
    return path


@pytest.fixture
def desk(tmp_path, short_sample, tiny_weights, monkeypatch):
    """A folder as the documentation sees it: samples/demo.mp4, and oasis-small is a toy."""
    from oasis_cli.checkpoints import registry as weights

    (tmp_path / "samples").mkdir()
    shutil.copy(short_sample, tmp_path / "samples" / "demo.mp4")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv(weights.FOLDER, str(tmp_path / "home"))
    monkeypatch.setattr(weights, "_ENTRIES", dict(weights.registry()))
    for entry in weights.registry().values():
        toy = replace(entry, sha256=weights.sha256(tiny_weights))
        shutil.copy(tiny_weights, tmp_path / "home" / toy.fetched_name)
        weights._ENTRIES[entry.name] = toy
    monkeypatch.chdir(tmp_path)
    return tmp_path


def marked(page):
    """(language, text) of the blocks that are to be run."""
    found = BLOCK.findall(page.read_text())
    return [(language, body) for mark, language, body in found if mark == "run"]


def run_command(line, capsys):
    """Run one `oasis ...` line in this process; `> file` keeps what it prints."""
    from oasis_cli.cli.main import app

    words = shlex.split(line, comments=True)
    assert words[0] == "oasis", line
    output = words[words.index(">") + 1] if ">" in words else None
    words = words[1 : words.index(">")] if output else words[1:]
    with pytest.raises(SystemExit) as left:
        app(words)
    assert left.value.code == 0, (line, capsys.readouterr())
    if output:
        Path(output).write_text(capsys.readouterr().out)


@pytest.mark.parametrize("page", [p for p in PAGES if marked(p)], ids=lambda p: p.stem)
def test_the_examples_run(page, desk, capsys, monkeypatch):
    for language, body in marked(page):
        if language == "python":
            exec(compile(body, str(page), "exec"), {"__name__": "example"})
            continue
        for line in body.splitlines():
            if " - --" in line or "-workers" in line:
                continue  # pipes and processes of their own: tests of the command line have them
            run_command(line, capsys)


def test_every_command_is_run_or_says_why_not():
    for page in PAGES:
        assert "\n    oasis " not in page.read_text(), f"{page.name}: a command outside a block"
        for mark, _, body in BLOCK.findall(page.read_text()):
            commands = [line for line in body.splitlines() if line.startswith("oasis ")]
            assert mark or not commands, (page.name, commands)


def test_links_lead_somewhere():
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for target in LINK.findall(page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_modules_that_are_named_are_there():
    """By their path in the package or in the repository."""
    for page in [*PAGES, *ROOT.glob("*.md")]:
        for path in MODULE.findall(page.read_text()):
            there = [root / path for root in (ROOT, ROOT / "src" / "oasis_cli")]
            assert any(p.exists() for p in there), f"{page.name}: {path}"


def test_every_page_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in readme, page.name


def load_script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_manual_page_has_every_command_and_option():
    import typer

    from oasis_cli.cli.main import app

    page = load_script("make_man").page()
    for name, command in typer.main.get_command(app).commands.items():
        assert f".SS oasis {name}".replace("-", r"\-") in page
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert parameter.opts[0].replace("-", r"\-") in page, (name, parameter.name)


def test_the_figures_are_those_of_the_script():
    figures = load_script("make_figures")
    assert (ROOT / "docs" / "images" / "attention.svg").read_text() == figures.attention()
    assert figures.heads(["gi", "iw"]).count("<rect") == 4 + 3


def test_the_menu_names_every_page():
    menu = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in menu, page.name


def test_the_shipped_table_is_of_the_shipped_model_by_the_documented_command():
    from oasis_cli.checkpoints.registry import registry

    name = "oasis-small-dense"
    table = json.loads((ROOT / "weights" / "heads" / f"{name}.json").read_text())
    assert table["model"]["sha256"] == registry()[name].sha256
    command = f"oasis calibrate-heads -o heads.json --model {name} --device cpu"
    rule = table["rule"]
    if rule["name"] != "budget":
        command += f" --rule {rule['name']}"
    if "proportion" in rule:
        command += f" --proportion {','.join(map(str, rule['proportion']))}"
    assert f"\n{command}\n" in (ROOT / "docs" / "calibration.md").read_text()
