"""`oasis weights fetch`: the right file in its place, or one sentence and what has arrived."""

import json
import os
import re
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from oasis_cli.checkpoints import fetch as fetching
from oasis_cli.checkpoints import registry
from oasis_cli.cli import doctor
from oasis_cli.cli.main import app
from oasis_cli.errors import WeightsError
from oasis_cli.jobs.items import check_model, with_model
from oasis_cli.media.atomic import in_work


def oasis(*words):
    return CliRunner().invoke(app, ["weights", "fetch", *map(str, words)])


def part_of(folder, entry):
    return folder / f".{entry.fetched_name}.part"


def refused(folder, *words, code=1):
    """What the command says instead; no file is in place then."""
    result = oasis(*words)
    assert result.exit_code == code, result.output
    assert re.fullmatch(r"error: [^\n]+\n(hint:  [^\n]+\n)?", result.output), result.output
    assert not list(folder.glob("toy*"))
    return result.output


def test_a_model_is_fetched_checked_and_found_by_its_name(folder, toy, server):
    with pytest.raises(WeightsError, match="not on this machine") as error:
        registry.find("toy")
    assert error.value.hint == "oasis weights fetch toy"
    result = oasis("toy")
    assert result.exit_code == 0 and "SHA-256 as released" in result.output
    path = registry.find("toy")
    assert path.read_bytes() == server.data
    assert [p.name for p in folder.iterdir()] == [toy.fetched_name] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert oasis("toy", "--quiet").exit_code == 0
    assert len(server.asked) == 1  # what is there is not fetched again


def _umask():
    now = os.umask(0)
    os.umask(now)
    return now


def test_what_was_cut_off_goes_on_where_it_was(folder, toy, server):
    server.cut = 300_000
    said = refused(folder, "toy")
    assert "cut after 300000 of 700000 bytes" in said and "goes on from there" in said
    server.cut = None
    assert oasis("toy").exit_code == 0
    assert server.asked[-1][1:] == ("bytes=300000-", '"one"')
    assert registry.find("toy").read_bytes() == server.data
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("why", ["no ranges", "another version", "another beginning", "too much"])
def test_a_beginning_of_no_use_is_fetched_again(folder, toy, server, why):
    server.cut = 300_000
    refused(folder, "toy")
    server.cut, server.ranges = None, why != "no ranges"
    if why == "another version":
        server.tag = '"two"'
    part = part_of(folder, toy)
    if why == "another beginning":
        part.write_bytes(bytes(300_000))
    if why == "too much":
        part.write_bytes(bytes(800_000))
    assert oasis("toy").exit_code == 0
    assert registry.find("toy").read_bytes() == server.data


def test_as_json_every_line_is_an_object(folder, toy, server):
    events = [json.loads(line) for line in oasis("toy", "--json").output.splitlines()]
    assert events[0] == {"event": "fetching", "bytes": 0, "total": 700_000}
    assert events[-1]["event"] == "done" and events[-1]["path"] == str(registry.find("toy"))
    server.status = 404
    registry.find("toy").unlink()
    result = oasis("toy", "--json")
    assert result.exit_code == 1 and json.loads(result.output)["event"] == "error"


def test_a_damaged_file_is_found_and_replaced(folder, toy, server):
    assert oasis("toy").exit_code == 0
    registry.find("toy").write_bytes(b"?")
    result = CliRunner().invoke(app, ["weights", "verify", "toy"])
    assert result.exit_code == 1 and "hint:  oasis weights fetch toy" in result.output
    assert oasis("toy").exit_code == 0
    assert registry.find("toy").read_bytes() == server.data


def test_the_doctor_does_not_mind_what_was_not_fetched(folder, toy):
    checks = {check.name: check for check in doctor._weights()}
    assert checks["weights toy"].ok and "oasis weights fetch toy" in checks["weights toy"].found
    folder.mkdir()
    (folder / toy.fetched_name).write_bytes(b"?")
    assert not {check.name: check for check in doctor._weights()}["weights toy"].ok


def test_a_weak_version_is_not_asked_for(folder, toy, server):
    server.tag, server.cut = 'W/"one"', 300_000
    refused(folder, "toy")
    server.cut = None
    assert oasis("toy").exit_code == 0
    assert server.asked[-1][1:] == ("bytes=300000-", None)


def test_another_file_is_refused_and_nothing_of_it_kept(folder, toy, server):
    server.data = server.data[:-1] + b"?"
    assert "its SHA-256 is" in refused(folder, "toy")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("length", [True, False])
def test_a_file_of_another_size_is_refused(folder, toy, server, length):
    server.data, server.length = server.data + b"more", length
    assert "bytes, not 700000" in refused(folder, "toy")
    server.data = b"<html>log in</html>"
    assert "cut after 19" in refused(folder, "toy") or length


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_quoted(folder, toy, server, status):
    server.status = status
    said = refused(folder, "toy")
    assert f"127.0.0.1: it answered {status}" in said
    assert ("--from URL" in said) == (status != 500)


def test_a_silent_server_is_not_waited_for(folder, toy, server, monkeypatch):
    monkeypatch.setattr(fetching, "PATIENCE", 0.2)
    server.silent.clear()
    assert "silent for" in refused(folder, "toy")


def test_without_a_network_there_is_one_sentence(folder, toy, closed_port):
    url = f"http://127.0.0.1:{closed_port}/toy"
    assert "Connection refused" in refused(folder, "toy", "--from", url)


@pytest.fixture
def closed_port():
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_the_proxy_of_the_environment_is_used(folder, toy, server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{server.server_port}")
    assert oasis("toy", "--from", "http://weights.invalid/toy").exit_code == 0
    assert server.asked[0][0] == "http://weights.invalid/toy"


def test_a_dead_proxy_is_named_without_its_password(folder, toy, server, closed_port, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://user:secret@127.0.0.1:{closed_port}")
    said = refused(folder, "toy", "--from", "http://weights.invalid/toy")
    assert "through the proxy 127.0.0.1 of HTTP_PROXY" in said and "secret" not in said
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert oasis("toy").exit_code == 0


@pytest.mark.parametrize("proxy", ["http://[", ":", "nonsense://x", "http://"])
def test_a_proxy_that_cannot_be_read_is_named(folder, toy, monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    assert "through the proxy" in refused(folder, "toy")


def test_a_disk_that_fills_up_is_one_sentence_and_loses_nothing(folder, toy, server):
    """A limit on the size of files stands for the disk's end."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, before[1]))
    try:
        said = refused(folder, "toy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written: File too large" in said and "goes on" in said
    there = part_of(folder, toy).stat().st_size
    assert there > 0 and oasis("toy").exit_code == 0
    assert server.asked[-1][1] == f"bytes={there}-"
    assert registry.find("toy").read_bytes() == server.data


def test_a_link_is_not_written_through(folder, toy, tmp_path):
    folder.mkdir()
    other = tmp_path / "precious"
    other.write_bytes(b"1")
    part_of(folder, toy).symlink_to(other)
    part_of(folder, toy).with_suffix(".from").symlink_to(other)
    assert oasis("toy").exit_code == 0
    assert other.read_bytes() == b"1"


def test_a_file_without_room_is_not_begun(folder, toy, server, monkeypatch):
    server.length = False
    huge = replace(toy, size=1 << 60)
    monkeypatch.setattr(registry, "_ENTRIES", {"toy": huge})
    assert "are free in" in refused(folder, "toy")
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_named(folder, toy, monkeypatch):
    monkeypatch.setenv(registry.FOLDER, "/dev/null/weights")
    said = refused(folder, "toy")
    assert "the folder /dev/null/weights cannot be made" in said and "OASIS_WEIGHTS=" in said


@pytest.mark.parametrize(
    "url",
    [
        *("", "weights", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://["),
        *("http://a:b@c/", "http://a..b/", "http://127.0.0.1:x/", "http://c/ü", "http://c/a b"),
    ],
)
def test_what_is_no_address_is_refused(folder, toy, url):
    refused(folder, "toy", "--from", url, code=2)


def test_an_address_is_read_also_when_there_is_nothing_to_fetch(folder, toy):
    assert oasis("toy").exit_code == 0
    assert oasis("toy", "--from", "ftp://127.0.0.1/x").exit_code == 2


def test_a_folder_in_the_way_is_named_before_anything_is_fetched(folder, toy, server):
    (folder / toy.fetched_name).mkdir(parents=True)
    result = oasis("toy")
    assert result.exit_code == 1 and "is a folder\nhint:  move it away" in result.output
    assert [path.name for path in folder.iterdir()] == [toy.fetched_name]


def test_a_damaged_copy_that_no_address_replaces_is_to_be_deleted(folder, toy, monkeypatch):
    assert oasis("toy").exit_code == 0
    path = registry.find("toy")
    path.write_bytes(b"?")
    lost = replace(toy, name="lost", file="lost.safetensors", ships=True)
    entries = {"lost": lost, "toy": replace(toy, urls=(), ships=True)}
    monkeypatch.setattr(registry, "_ENTRIES", entries)
    assert f"hint:  delete {path}" in oasis("toy").output
    verified = CliRunner().invoke(app, ["weights", "verify"])
    assert verified.exit_code == 1 and "lost: not here" in verified.output
    assert "toy: not as released" in verified.output  # also behind one that is missing


def test_a_server_cannot_lead_to_a_file(folder, toy, server):
    server.lead_to = "file:///etc/passwd"
    refused(folder, "toy")
    server.lead_to = "ftp://127.0.0.1/toy"
    refused(folder, "toy")


def test_a_server_that_leads_to_itself_is_left(folder, toy, server):
    server.lead_to = server.url
    assert "infinite loop" in refused(folder, "toy")


def test_a_server_may_lead_elsewhere(folder, toy, server, serve):
    other = serve(server.data)
    other.cut, server.lead_to = 300_000, other.url
    refused(folder, "toy")
    other.cut = None
    assert oasis("toy").exit_code == 0
    assert other.asked[-1][1] == "bytes=300000-"


def test_the_next_address_is_tried(folder, toy, server, closed_port, monkeypatch):
    both = replace(toy, urls=(f"http://127.0.0.1:{closed_port}/toy", server.url))
    monkeypatch.setattr(registry, "_ENTRIES", {"toy": both})
    assert oasis("toy").exit_code == 0


def test_a_model_that_ships_and_has_no_address_says_so(folder, toy, monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {"toy": replace(toy, urls=(), ships=True)})
    assert "has no address of its own" in refused(folder, "toy")


def test_an_unknown_model_is_refused(folder, toy):
    assert "known models: " in refused(folder, "toys", code=2)


def test_two_do_not_fetch_one_file(folder, toy):
    folder.mkdir()
    with in_work(folder / toy.fetched_name):
        assert "another run is writing" in refused(folder, "toy")


def test_another_release_of_a_model_is_never_taken_for_this_one(folder, toy, monkeypatch):
    assert oasis("toy").exit_code == 0
    later = replace(toy, sha256="0" * 64)
    monkeypatch.setattr(registry, "_ENTRIES", {"toy": later})
    with pytest.raises(WeightsError, match="not on this machine"):
        registry.find("toy")


def test_no_other_command_fetches(folder, toy, server, tiny_clip, tmp_path, monkeypatch):
    def begin(target, options, *rest):
        """What a batch's process does first, here: another process does not know the toy."""
        check_model(with_model(options))

    monkeypatch.setattr("oasis_cli.jobs.batch.Apart", begin)
    for words in (
        ["upscale", tiny_clip, tmp_path / "out.mp4", "--model", "toy"],
        ["batch", tmp_path, tmp_path / "out", "--model", "toy"],
        ["weights", "find", "toy"],
        ["weights", "show", "toy"],
        ["weights", "verify", "toy"],
    ):
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 1
        assert "the weights of toy are not on this machine" in result.output
        assert "hint:  oasis weights fetch toy" in result.output
    listed = CliRunner().invoke(app, ["weights", "list"]).output
    assert "not here" in listed
    assert CliRunner().invoke(app, ["weights", "verify"]).exit_code == 0
    assert not server.asked
