"""What `oasis info` says of a file."""

import json
import subprocess
import sys

from toys import invoke


def test_info(tiny_clip):
    text = invoke("info", tiny_clip, "--count").stdout
    for word in ("h264, 32x24, yuv420p, 25 frames/s", "8 decoded", "audio #1: aac"):
        assert word in text
    about = json.loads(invoke("info", tiny_clip, "--json", "--count").stdout)
    assert (about["video"]["width"], about["frames"]) == (32, 8)


def test_info_needs_no_pytorch(tiny_clip):
    code = (
        "import sys; sys.argv = ['oasis', 'info', sys.argv[1], '--count']\n"
        "try:\n    from oasis_cli.cli.main import app; app()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_clip)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "8 decoded" in result.stdout
    assert result.stdout.strip().endswith("False")
