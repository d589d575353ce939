"""No input opens another file or an address unless the user names the protocol."""

import os
import socket
import sys
import threading
from types import SimpleNamespace

import pytest

from oasis_cli.errors import MediaError, OasisError, UsageError
from oasis_cli.media.input import source
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput

FILES = RawInput(protocols=("file",))


@pytest.fixture
def part(kit, tmp_path):
    """A video that playlists name."""
    return kit.video(tmp_path / "part.ts", frames=10, options={"g": "5"})


@pytest.fixture
def listener():
    """A server that must never be asked: `asked` tells whether it was."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        about = SimpleNamespace(port=server.getsockname()[1], asked=False)

        def wait():
            try:
                asker = server.accept()[0]
                about.asked = True  # before who asks may go on
                asker.close()
            except OSError:
                pass

        threading.Thread(target=wait, daemon=True).start()
        yield about


def hls(name):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\n{name}\n#EXT-X-ENDLIST\n"


def concat(name):
    return f"ffconcat version 1.0\nfile '{name}'\n"


def dash(name):
    return (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-main:2011" mediaPresentationDuration="PT1S">'
        f'<Period><AdaptationSet mimeType="video/mp4"><Representation id="0" bandwidth="1">'
        f"<BaseURL>{name}</BaseURL></Representation></AdaptationSet></Period></MPD>\n"
    )


def sdp(name):
    return (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=video 5004 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    )


def give(monkeypatch, data):
    """Make `-` a pipe that holds the data and ends."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(fileno=lambda: reading))
    )


@pytest.mark.parametrize("through", ["file", "pipe"])
@pytest.mark.parametrize("list_of", [hls, concat, dash, sdp])
def test_a_playlist_is_refused_and_the_refusal_says_what_allows_it(
    part, tmp_path, monkeypatch, list_of, through
):
    path = tmp_path / "list.mp4"
    path.write_text(list_of(part.name))
    if through == "pipe":
        give(monkeypatch, path.read_bytes())
    with pytest.raises(MediaError, match="names other files or addresses") as caught:
        probe(path if through == "file" else "-")
    assert "--allow-protocols" in caught.value.hint


@pytest.mark.parametrize("list_of", [hls, concat])
@pytest.mark.parametrize("where", ["beside", "absolute", "file:///", "http"])
def test_a_playlist_that_is_not_recognised_still_reaches_nothing(
    part, tmp_path, monkeypatch, listener, list_of, where
):
    monkeypatch.setattr(source, "check_reach", lambda *args: None)
    names = {"beside": part.name, "absolute": str(part), "file:///": f"file://{part}",
             "http": f"http://127.0.0.1:{listener.port}/part.ts"}  # fmt: skip
    path = tmp_path / "list.mp4"
    path.write_text(list_of(names[where]))
    with pytest.raises(OasisError):
        probe(path)
    give(monkeypatch, path.read_bytes())
    with pytest.raises(OasisError):
        probe("-")
    assert not listener.asked


@pytest.mark.parametrize("format", ["hls", "sdp", "concat", "rtsp", "lavfi", "x11grab", "mp4,"])
def test_a_format_that_reaches_out_must_not_be_asked_for(monkeypatch, tmp_path, listener, format):
    text = hls(f"http://127.0.0.1:{listener.port}/part.ts")
    give(monkeypatch, text.encode())
    (tmp_path / "in.txt").write_text(text)
    for path in ("-", tmp_path / "in.txt"):
        with pytest.raises(UsageError):
            probe(path, RawInput(format=format))
    assert not listener.asked


@pytest.mark.parametrize("list_of", [hls, concat])
def test_local_lists_are_read_when_files_are_allowed(kit, part, tmp_path, list_of):
    path = tmp_path / "list.m3u8"
    path.write_text(list_of(part.name))
    done = kit.enlarge(path, tmp_path / "out.mkv", raw=FILES)
    assert done.report.frames == len(kit.shown(tmp_path / "out.mkv")) == 10


def test_allowed_files_are_not_allowed_addresses(tmp_path, listener):
    path = tmp_path / "list.m3u8"
    path.write_text(hls(f"http://127.0.0.1:{listener.port}/part.ts"))
    with pytest.raises(MediaError):
        probe(path, FILES)
    assert not listener.asked


def test_allowed_addresses_are_not_allowed_files(part, tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text(hls(part.name))
    with pytest.raises(MediaError):
        probe(path, RawInput(protocols=("http",)))


def test_allowed_addresses_are_asked(tmp_path, listener):
    path = tmp_path / "list.m3u8"
    path.write_text(hls(f"http://127.0.0.1:{listener.port}/part.ts"))
    with pytest.raises(MediaError):
        probe(path, RawInput(protocols=("http",)))
    assert listener.asked


def quoted(name):
    return f"ffconcat version 1.0\n  file {name[:2]}'{name[2:4]}'\\{name[4:]}\n"


def sound(name):
    return f'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{name}"\n{hls(name)}'


@pytest.mark.parametrize("list_of", [hls, concat, dash, quoted, sound])
def test_lists_that_never_end_are_refused(tmp_path, list_of):
    first, second = tmp_path / "first.m3u8", tmp_path / "second.m3u8"
    first.write_text(list_of("first.m3u8"))
    with pytest.raises(MediaError, match="names another"):
        probe(first, FILES)
    first.write_text(list_of("second.m3u8"))
    second.write_text(list_of("first.m3u8"))
    with pytest.raises(MediaError, match="names another"):
        probe(first, FILES)
    first.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nfirst.m3u8\n")
    with pytest.raises(MediaError, match="names another"):
        probe(first, FILES)


def test_long_addresses_in_a_list_are_no_files(tmp_path, listener):
    path = tmp_path / "list.m3u8"
    path.write_text(hls(f"http://127.0.0.1:{listener.port}/{500 * 'x'}.ts"))
    with pytest.raises(MediaError, match="no video|not a video"):
        probe(path, RawInput(protocols=("file", "http")))
    assert listener.asked


def test_a_master_list_offers_lists(kit, part, tmp_path):
    (tmp_path / "low.m3u8").write_text(hls(part.name))
    master = tmp_path / "master.m3u8"
    master.write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nlow.m3u8\n")
    assert probe(master, FILES).video.width == 32


def test_an_unknown_protocol_is_refused(part):
    with pytest.raises(UsageError, match="gopher"):
        probe(part, RawInput(protocols=("gopher",)))


def test_a_numbered_name_is_one_picture_and_not_its_neighbours(kit, tmp_path):
    frame = kit.ramp(0, 32, 24)
    assert frame.shape == (24, 32, 3)
    header = bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 24, 0, 24, 0])
    for name in ("x01.tga", "x02.tga", "x%02d.tga"):
        (tmp_path / name).write_bytes(header + frame.tobytes())
    done = kit.enlarge(tmp_path / "x%02d.tga", tmp_path / "out.mkv")
    assert done.report.frames == 1
