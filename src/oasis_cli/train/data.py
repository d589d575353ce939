"""Batches: a pool of (damaged, clean) clips on the training device, renewed while training runs.

A chunk of clips goes through three steps, one at each tick, so that codecs have time to work:

    begin   film clean clips, first degradation            -> codecs
    middle  second degradation                             -> codecs
    finish  to the low-quality size, enlarge, into the pool

Everything a chunk is depends on its number and the seed alone, and everything a batch is on the
step: a resumed run sees the same data.
"""

import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.media.training import CODECS, SMALLEST, Compression
from oasis_cli.model.latent import ALIGN, bicubic_upsample
from oasis_cli.runtime.devices import capabilities
from oasis_cli.train.camera import CELL, UNKNOWN
from oasis_cli.train.codec import CodecPool, CodecTask, shared_slot
from oasis_cli.train.data_config import UP, DataConfig
from oasis_cli.train.degrade import (
    add_noise,
    blur,
    blur_kernels,
    harder,
    interlace,
    jpeg,
    old_film,
    resize_by,
    resize_matrix,
    sharpening,
)
from oasis_cli.train.draws import Draws, Rare, draw_rare, shown_frames
from oasis_cli.train.footage import Footage, sample_clips
from oasis_cli.train.recordings import deinterlaced, few_colours, frozen, night, tape


class Batch(NamedTuple):
    """What a step learns from."""

    low: Tensor
    """(B, T, 3, H, W) in [-1, 1]: low-quality clips, enlarged to the target size."""
    high: Tensor
    """The clean clips, alike."""
    motion: Tensor
    """(B, T - 1, 2, H / CELL, W / CELL): how many pixels right and down of a place in a frame its
    content was in the frame before; `UNKNOWN` where nobody knows."""


@dataclass(slots=True)
class Chunk:
    """A chunk on its way."""

    number: int
    draws: Draws
    scale: int
    slot: Tensor
    clean: Tensor
    motion: Tensor
    sizes: np.ndarray
    """(n,) pixels of each clip on the canvas now."""
    tasks: list[CodecTask]
    keep: np.ndarray
    """(n, 1) the chance of each clip to go through a step of its degradation."""
    rare: Rare
    resized: np.ndarray
    """(n,) bool: already at the low-quality size."""
    copied: torch.cuda.Event | None = None
    running: list["Future[None]"] | None = None


class ClipPool:
    """Makes chunks, keeps the pool, hands out batches."""

    def __init__(
        self,
        footage: Footage,
        config: DataConfig,
        codecs: CodecPool,
        seed: int,
        device: torch.device,
    ) -> None:
        self.footage = footage.weighed(config.often)
        self.config, self.codecs = config, codecs
        self.seed, self.device = seed, device
        c = config
        self.low = torch.empty(
            (c.pool, c.frames, 3, c.side, c.side), dtype=torch.float16, device=device
        )
        self.high = torch.empty(self.low.shape, dtype=torch.uint8, device=device)
        cells = (c.pool, c.frames - 1, 2, c.side // CELL, c.side // CELL)
        self.motion = torch.empty(cells, dtype=torch.float16, device=device)
        shape = (c.chunk, c.frames, c.canvas, c.canvas, 3)
        self.slots = deque(shared_slot(shape, device) for _ in range(3))
        self.chunks: deque[Chunk] = deque()
        self.begun = self.finished = 0
        self.varying: list[tuple[int, float]] = []
        """From which chunk on, and for what share of its clips, degradations vary by frame."""
        self.waited = 0.0
        """Seconds spent waiting for codecs."""

    def vary(self, share: float) -> None:
        """From the next chunk on, let the degradations of this share of clips vary by frame."""
        self.varying.append((self.begun, share))

    @property
    def have(self) -> int:
        """Clips in the pool; those after it have not been made yet."""
        return min(self.finished * self.config.chunk, self.config.pool)

    def fill(self, chunks: int) -> None:
        """Make whole chunks until `chunks` are finished."""
        while self.finished < chunks:
            self.tick()

    def restart(self, finished: int) -> None:
        """Make again what the pool held when `finished` chunks were done (after a resume)."""
        held = self.config.pool // self.config.chunk
        first = max(0, finished - held)
        self.begun = self.finished = first
        self.fill(finished)

    def tick(self) -> None:
        """Move every chunk on its way one step and begin a new one."""
        if len(self.chunks) == 2:
            self._finish(self.chunks.popleft())
        if self.chunks:
            self._middle(self.chunks[0])
        self.chunks.append(self._begin(self.begun))
        self.begun += 1

    def poll(self) -> None:
        """Start codecs whose pictures have arrived in shared memory. Call it often; it is cheap."""
        for chunk in self.chunks:
            if chunk.copied is None or chunk.copied.query():
                self._start(chunk)

    def _start(self, chunk: Chunk) -> None:
        if chunk.running is None:
            chunk.running = self.codecs.submit(chunk.slot, chunk.tasks)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        c = self.config
        rng = np.random.default_rng([self.seed, 1, step])
        have = self.have
        parts: list[list[Tensor]] = [[], [], []]
        for number in rng.choice(have, c.batch, replace=have < c.batch):
            place = ALIGN * rng.integers((c.side - c.crop) // ALIGN + 1, size=2)
            flip = rng.random() < 0.5
            for pool, cell, out in zip(
                (self.low, self.high, self.motion), (1, 1, CELL), parts, strict=True
            ):
                rows, cols = (slice(at, at + c.crop // cell) for at in place // cell)
                part = pool[number, :, :, rows, cols]
                out.append(part.flip(-1) if flip else part)
            if flip:
                right_and_down = parts[2][-1].new_tensor([-1, 1]).view(2, 1, 1)
                parts[2][-1] = parts[2][-1] * right_and_down
        low, high, motion = (torch.stack(part).float() for part in parts)
        high = high / 127.5 - 1
        if c.sharpened:
            high = harder(high, c.sharpened)
        return Batch(low, high, motion)

    def _begin(self, number: int) -> Chunk:
        c = self.config
        rng = np.random.default_rng([self.seed, 2, number])
        clean, motion = sample_clips(self.footage, c.chunk, c.frames, c.side, rng)
        clean, motion = self._with_cuts(clean, motion, number)
        varying = [share for first, share in self.varying if first <= number]
        draws = Draws(c.chunk, c.frames, [self.seed, 3, number], varying[-1], self.device)
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + number)
        scales, chances = zip(*c.scales, strict=True)
        scale = int(rng.choice(scales, p=np.array(chances) / sum(chances)))
        keep = np.where(draws.rng.random((c.chunk, 1)) < c.light, c.kept, 1.0)
        rare = self._rare(number)
        keep[rare.keyed] = 1.0
        keep[rare.waxing] = c.kept
        clean = self._darkened(clean, rare, draws)
        x = clean.flatten(0, 1).float()
        x = blur(x, blur_kernels(draws.blur(3.0, keep)))
        size = np.full(c.chunk, c.side)
        x, sizes = self._resize(x, size, draws, keep, (0.2, 0.7, 0.1), 0.15, 0.015)
        x = old_film(x, draws.film(c.film, c.side // 2), generator)
        chosen = draws.rng.random((c.chunk, 1)) < c.interlaced
        x = interlace(x, draws.tensor(chosen), c.frames)
        x = self._noise_and_jpeg(x, draws, keep, (30, 3), generator)
        resized = np.zeros(c.chunk, bool)
        tasks = self._tasks(draws, sizes, c.codec[0] * keep, rare)
        slot = self.slots.popleft()
        chunk = Chunk(number, draws, scale, slot, clean, motion, sizes, tasks, keep, rare, resized)
        self._send(chunk, x)
        return chunk

    def _rare(self, number: int) -> Rare:
        c, rng = self.config, np.random.default_rng([self.seed, 5, number])
        names = ("halo", "night", "deinterlaced", "tape", "few_colours", "starved")
        shares = {name: getattr(c, name) for name in names}
        return draw_rare(c.chunk, c.frames, rng, c.uneven, **shares)

    def _darkened(self, clean: Tensor, rare: Rare, draws: Draws) -> Tensor:
        """Clips with noise of the night are dark, also where they are clean."""
        gain = np.where(rare.night, draws.rng.uniform(0.25, 0.8, len(rare.night)), 1.0)
        if not rare.night.any():
            return clean
        light = draws.tensor(gain[:, None])[:, None, None, None, None]
        return (clean * light).round().to(torch.uint8)

    def _with_cuts(self, clean: Tensor, motion: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Some clips (N, T, 3, S, S) go on as the one before them, from any frame on."""
        c, rng = self.config, np.random.default_rng([self.seed, 4, number])
        first = np.where(rng.random(c.chunk) < c.cuts, rng.integers(1, c.frames, c.chunk), c.frames)
        cut = torch.from_numpy(first).to(clean.device).view(-1, 1, 1, 1, 1)
        frame = torch.arange(c.frames, device=clean.device).view(1, -1, 1, 1, 1)
        motion = torch.where(frame[:, 1:] > cut, motion.roll(1, 0), motion)
        motion = motion.masked_fill(frame[:, 1:] == cut, UNKNOWN)
        return torch.where(frame >= cut, clean.roll(1, 0), clean), motion

    def _middle(self, chunk: Chunk) -> None:
        c, draws, keep = self.config, chunk.draws, chunk.keep
        x = self._receive(chunk)
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 - chunk.number)
        x = blur(x, blur_kernels(draws.blur(1.5, 0.8 * keep)))
        x, chunk.sizes = self._resize(x, chunk.sizes, draws, keep, (0.3, 0.4, 0.3), 0.3, 0.03)
        x = self._noise_and_jpeg(x, draws, keep, (25, 2.5), generator)
        chunk.resized = draws.rng.random(c.chunk) < 0.5
        x = self._to_low(x, chunk, chunk.resized)
        x = self._recorded(x, chunk, generator)
        chunk.tasks = self._tasks(draws, chunk.sizes, c.codec[1] * keep, chunk.rare)
        self._send(chunk, x)

    def _recorded(self, x: Tensor, chunk: Chunk, generator: torch.Generator) -> Tensor:
        """Damage of cameras and recorders on the few clips that have it."""
        rare, video = chunk.rare, x.unflatten(0, (self.config.chunk, -1))
        for chosen, damage in (
            (rare.night, night),
            (rare.deinterlaced, deinterlaced),
            (rare.tape, tape),
        ):
            clips = np.flatnonzero(chosen)
            if len(clips):
                where = torch.from_numpy(clips).to(self.device)
                whole = self._edges_repeated(video[where].flatten(0, 1), chunk, clips)
                video[where] = damage(whole.unflatten(0, (len(clips), -1)), generator)
        return x

    def _finish(self, chunk: Chunk) -> None:
        c = self.config
        low_side = c.side // chunk.scale
        x = self._to_low(self._receive(chunk), chunk, ~chunk.resized)[..., :low_side, :low_side]
        video = self._uneven(x.unflatten(0, (c.chunk, c.frames)), chunk)
        low = bicubic_upsample(video.clamp(0, 255).round() / 127.5 - 1, (c.side, c.side))
        first = self.finished * c.chunk % c.pool
        self.low[first : first + c.chunk] = low.half()
        self.high[first : first + c.chunk] = chunk.clean
        self.motion[first : first + c.chunk] = chunk.motion.half()
        self.slots.append(chunk.slot)
        self.finished += 1

    def _uneven(self, video: Tensor, chunk: Chunk) -> Tensor:
        """Coarse colours, nearly clean frames and lost slices, at the low-quality size."""
        rare, side = chunk.rare, video.shape[-1]
        clips = np.flatnonzero(rare.few_colours)
        if len(clips):
            where = torch.from_numpy(clips).to(self.device)
            video[where] = few_colours(video[where])
        clips, times = np.nonzero(rare.good)
        if len(clips):
            frames = tuple(torch.from_numpy(n).to(self.device) for n in (clips, times))
            small = F.interpolate(
                chunk.clean[frames].float(), (side, side), mode="bicubic", antialias=True
            )
            share = chunk.draws.tensor(rare.good[clips, times][:, None])[:, None, None, None]
            video[frames] = video[frames].lerp(small, share)
        clips = np.flatnonzero(rare.lost[:, 0])
        if len(clips):
            where = torch.from_numpy(clips).to(self.device)
            shown = torch.from_numpy(shown_frames(rare.lost[clips], self.config.frames, side))
            video[where] = frozen(video[where], shown.to(self.device))
        return video

    def _noise_and_jpeg(
        self,
        x: Tensor,
        draws: Draws,
        keep: np.ndarray,
        most: tuple[float, float],
        generator: torch.Generator,
    ) -> Tensor:
        """most: the largest sigma of Gaussian and scale of Poisson noise."""
        noisy, coded = (draws.clips_with(keep)[:, None, None, None] for _ in range(2))
        x = torch.where(noisy, add_noise(x, draws.noise(*most), generator), x)
        return torch.where(coded, jpeg(x, draws.tensor(draws.uniform(30, 95, 3))), x)

    def _resize(
        self,
        x: Tensor,
        sizes: np.ndarray,
        draws: Draws,
        keep: np.ndarray,
        chances: tuple[float, ...],
        low: float,
        step: float,
    ) -> tuple[Tensor, np.ndarray]:
        """A random resize; clips whose factor moves come back to their first frame's size."""
        canvas = self.config.canvas
        factor = draws.scale(chances, low, UP, step)
        factor = np.where(draws.rng.random((self.config.chunk, 1)) < keep, factor, 1.0)
        each = np.clip((sizes[:, None] * factor / 2).round() * 2, 12, canvas)
        after = each[:, 0].astype(int)
        how = draws.tensor(draws.choice([1, 1, 1], True))
        here, there = draws.tensor(np.repeat(sizes[:, None], each.shape[1], 1)), draws.tensor(each)
        matrix = resize_matrix(here, there, how, x.shape[-1], canvas)
        if (each != each[:, :1]).any():
            back = draws.tensor(np.repeat(each[:, :1], each.shape[1], 1))
            matrix = resize_matrix(there, back, how, canvas, canvas) @ matrix
        return resize_by(x, matrix), after

    def _to_low(self, x: Tensor, chunk: Chunk, chosen: np.ndarray) -> Tensor:
        """Bring the chosen clips to the low-quality size, with a low-pass on most of them."""
        if not chosen.any():
            return x
        c, draws = self.config, chunk.draws
        low_side = c.side // chunk.scale
        frames = draws.tensor(np.flatnonzero(np.repeat(chosen, c.frames))[:, None]).long()
        kernels = blur_kernels(draws.low_pass(0.8 * chunk.keep, chunk.rare.soft))
        halo = np.repeat(chunk.rare.halo[:, None], c.frames, 1)
        radius = np.repeat(draws.rng.uniform(0.7, 2.0, (c.chunk, 1)), c.frames, 1)
        kernels = sharpening(kernels, draws.tensor(halo), draws.tensor(radius))[frames]
        how = draws.tensor(draws.choice([1, 1, 1]))[frames]
        here = draws.tensor(np.repeat(chunk.sizes[:, None].astype(float), c.frames, 1))[frames]
        matrix = resize_matrix(here, torch.full_like(here, low_side), how, c.canvas, low_side)
        small = blur(resize_by(x[frames], matrix), kernels)
        x[frames, :, :low_side, :low_side] = small
        chunk.sizes = np.where(chosen, low_side, chunk.sizes)
        return x

    def _tasks(
        self, draws: Draws, sizes: np.ndarray, share: np.ndarray, rare: Rare
    ) -> list[CodecTask]:
        """Which clips a codec damages, and how. share: (n, 1), the chance of each."""
        rng, tasks = draws.rng, []
        hungry = rare.starved | rare.keyed
        share = np.where(hungry[:, None], 1.0, share)
        for number, size in enumerate(sizes):
            c = self.config
            low, high = np.log(c.starved_bits if hungry[number] else c.bits)
            codec = CODECS[rng.choice(len(CODECS), p=[0.4, 0.25, 0.1, 0.1, 0.15])]
            if size < SMALLEST.get(codec, 0):
                codec = "libx264"
            bits = np.exp(rng.uniform(low, high)) / size**2
            if rng.random() < share[number, 0]:
                tasks.append(CodecTask(number, int(size), Compression(codec, float(bits))))
        return tasks

    def _send(self, chunk: Chunk, x: Tensor) -> None:
        """Copy pictures to shared memory; `poll` starts the codecs when they have arrived."""
        pictures = x.clamp(0, 255).round().to(torch.uint8).unflatten(0, (self.config.chunk, -1))
        chunk.slot.copy_(pictures.permute(0, 1, 3, 4, 2), non_blocking=True)
        chunk.copied = None
        if capabilities(self.device).streams:
            chunk.copied = torch.cuda.Event()
            chunk.copied.record()
        chunk.running = None

    def _receive(self, chunk: Chunk) -> Tensor:
        """Wait for the codecs. Pictures as (N, 3, S, S) float32, edges repeated to the canvas."""
        began = time.perf_counter()
        if chunk.copied is not None:
            chunk.copied.synchronize()
        self._start(chunk)
        self.codecs.wait(chunk.running or [])
        self.waited += time.perf_counter() - began
        x = chunk.slot.to(self.device, non_blocking=True).permute(0, 1, 4, 2, 3).flatten(0, 1)
        return self._edges_repeated(x, chunk, np.arange(self.config.chunk)).float()

    def _edges_repeated(self, x: Tensor, chunk: Chunk, clips: np.ndarray) -> Tensor:
        """Frames of some clips with the last row and column of each repeated to the canvas."""
        sizes = np.repeat(chunk.sizes[clips, None], self.config.frames, 1)
        last = chunk.draws.tensor(sizes - 1.0)
        index = torch.arange(x.shape[-1], device=self.device)[None].minimum(last[:, None]).long()
        x = x.gather(2, index[:, None, :, None].expand(x.shape))
        return x.gather(3, index[:, None, None].expand(x.shape))
