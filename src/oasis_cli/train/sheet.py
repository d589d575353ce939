"""A contact sheet of what the data pipeline makes: look at it before spending hours on it."""

from dataclasses import replace
from pathlib import Path

import torch

from oasis_cli.media.pictures import encode_picture
from oasis_cli.train.codec import CodecPool
from oasis_cli.train.data import ClipPool
from oasis_cli.train.footage import load_footage
from oasis_cli.train.presets import TrainConfig

ROWS = 16


def contact_sheet(config: TrainConfig, data: Path, target: Path, varying: float) -> None:
    """Write a PNG: each row a clip, its first and last frame clean, then damaged and enlarged.

    varying: share of clips whose degradation varies from frame to frame.
    """
    few = replace(config.data, chunk=8, pool=ROWS)
    device = torch.device("cpu")
    footage = load_footage(data, device, few.side, few.frames)
    codecs = CodecPool(2)
    pool = ClipPool(footage, few, codecs, config.seed, device)
    pool.vary(varying)
    pool.fill(ROWS // few.chunk)
    codecs.close()
    ends = [0, few.frames - 1]
    low = (pool.low[:, ends].float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
    both = torch.cat([pool.high[:, ends], low], dim=1)  # (clips, 4, 3, S, S)
    picture = both.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    target.write_bytes(encode_picture(picture.contiguous().numpy()))
