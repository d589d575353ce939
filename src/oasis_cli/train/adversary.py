"""The discriminators: a U-Net that judges every pixel of a frame, one that judges motion, and one
that sees a frame through VGG-16's features."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.train.losses import feature_matching, hinge_discriminator, hinge_generator

MOTION_GAIN = 4.0
"""Changes from frame to frame are small beside the frames; this brings them to a similar size."""

PULL_STEPS = 50
"""Steps that the averages of the other losses' gradient and of the discriminators' losses go
over, about."""


class Judge:
    """The discriminators with their optimiser: what they tell the restorer, and how they learn."""

    NAMES = ("frame", "motion", "features")

    def __init__(
        self,
        rate: float,
        frames: int,
        device: torch.device,
        width: int = 48,
        features: VggFeatures | None = None,
    ) -> None:
        """frames: how many in a row of each clip are judged; all would cost more than restoring.

        features: adds a discriminator that sees a frame through them.
        """
        self.frames, self.rate = frames, rate
        self.net = Adversary(width, features).to(device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), rate, betas=(0.5, 0.99))
        self.pull, self.least = torch.full((2,), torch.inf, device=device)
        """The norm of the other losses' gradient, averaged over steps, and the least of that."""
        self.doubt = {name: torch.full((), 2.0, device=device) for name in self.NAMES}
        """Each discriminator's own loss, averaged over steps; 2 before it has learned anything."""

    def watched(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The same few frames in a row of both clips, (B, T, 3, H, W)."""
        first = int(torch.randint(max(1, output.shape[1] - self.frames + 1), ()))
        some = slice(first, first + self.frames)
        return output[:, some], target[:, some]

    def losses(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """For the restorer: how far `output` is from fooling each of them, as `adversarial_frame`
        and so on, and from the target's features, as `matching`."""
        self.net.requires_grad_(False)
        scores, fake = self.net(output)
        with torch.no_grad():
            real = self.net(target)[1]
        self.net.requires_grad_(True)
        found = {f"adversarial_{name}": hinge_generator(score) for name, score in scores.items()}
        return found | {"matching": feature_matching(fake, real)}

    def learn(
        self,
        output: Tensor,
        target: Tensor,
        share: Callable[[list[nn.Parameter]], None],
        pace: float = 1.0,
    ) -> dict[str, Tensor]:
        """One update of the discriminators; `share` averages gradients over processes.

        pace: of their learning rate. Theirs falls with the restorer's, or they win at the end, and
        what it has learned from them fades.
        Returns each one's loss, as `judge_frame` and so on: 2 at first, 0 when it is never wrong.
        """
        scores, _ = self.net(torch.cat([target, output.detach()]))
        losses = {
            f"judge_{name}": hinge_discriminator(*score.chunk(2)) for name, score in scores.items()
        }
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).mean().backward()
        share(list(self.net.parameters()))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * pace
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        losses = {name: loss.detach() for name, loss in losses.items()}
        for name in scores:
            self.doubt[name] = self.doubt[name].lerp(losses[f"judge_{name}"], 1 / PULL_STEPS)
        return losses

    def shared_gradient(
        self, output: Tensor, losses: dict[str, Tensor], weight: Callable[[str], float]
    ) -> Tensor:
        """The gradient of weighted losses on `output`, in which a discriminator has the share of
        the other losses' gradient that its weight says (after VQGAN, arXiv 2012.09841, 3.1).

        Returns a tensor of output's shape. What a discriminator adds is `weight` of its name times
        as long as the gradient of the losses that are no discriminator's, or as that was on average
        when it was shortest. Worse pictures have longer gradients: without that limit, what spoils
        them would be heard ever more. A discriminator that is being fooled is heard less, by how
        far its own loss is above 1 (not at all from 2 on, where it knows nothing): what it says
        then is how it was fooled, and the picture would follow.
        """
        heard = {name: loss for name, loss in losses.items() if name.startswith("adversarial")}
        rest = [loss for name, loss in losses.items() if name not in heard and weight(name)]
        # The others come last and release their graphs: compiled losses cannot keep them.
        said = {
            name: torch.autograd.grad(loss, output, retain_graph=True)[0]
            for name, loss in heard.items()
            if weight(name)
        }
        (total,) = torch.autograd.grad(torch.stack(rest).sum(), output)
        norm = total.norm()
        self.pull = torch.where(self.pull.isinf(), norm, self.pull.lerp(norm, 1 / PULL_STEPS))
        self.least = torch.minimum(self.least, self.pull)
        strength = torch.minimum(norm, self.least)
        for name, gradient in said.items():
            sure = (2 - self.doubt[name.removeprefix("adversarial_")]).clamp(0, 1)
            total = total + gradient * (
                weight(name) * sure * strength / gradient.norm().clamp(min=1e-12)
            )
        return total

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pull": (self.pull, self.least),
            "doubt": self.doubt,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pull, self.least = state.get("pull", (self.pull, self.least))
        self.doubt = dict(state.get("doubt", self.doubt))
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])


class Adversary(nn.Module):
    """The discriminators; each returns scores and the features that matching compares."""

    def __init__(self, width: int = 48, features: VggFeatures | None = None) -> None:
        super().__init__()
        self.frame = FrameDiscriminator(width)
        self.motion = MotionDiscriminator(width)
        self.features = FeatureDiscriminator(width, features) if features is not None else None

    def forward(self, clip: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        """clip: (B, T, 3, H, W) in [-1, 1], H and W multiples of 8.

        Returns scores, by `frame`, `motion` (of three frames or more) and `features`, and features.
        """
        frames = clip.flatten(0, 1)
        score, features = self.frame(frames)
        scores = {"frame": score}
        if clip.shape[1] >= 3:
            scores["motion"], more = self.motion(clip)
            features = features + more
        if self.features is not None:
            scores["features"] = self.features(frames)
        return scores, features


class FrameDiscriminator(nn.Module):
    """A U-Net with spectral norm, a score for each pixel (Real-ESRGAN, arXiv 2107.10833)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.first = nn.Conv2d(3, w, 3, padding=1)
        self.down = nn.ModuleList(
            _normed(nn.Conv2d(w << n, w << (n + 1), 4, 2, 1, bias=False)) for n in range(3)
        )
        self.up = nn.ModuleList(
            _normed(nn.Conv2d(w << (n + 1), w << n, 3, padding=1, bias=False)) for n in (2, 1, 0)
        )
        self.last = nn.Conv2d(w, 1, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x: (N, 3, H, W). Returns (N, 1, H, W) scores and the features on the way down."""
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.leaky_relu(self.first(x), 0.2)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = F.leaky_relu(layer(x), 0.2)
        features = [*skips[1:], x]
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = F.leaky_relu(layer(x), 0.2) + skips.pop()
        return self.last(x), features


class MotionDiscriminator(nn.Module):
    """Judges the changes between three frames in a row, where flicker shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [6, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            _normed(nn.Conv2d(a, b, 4, 2, 1)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.last = nn.Conv2d(4 * width, 1, 3, padding=1)

    def forward(self, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
        """clip: (B, T, 3, H, W), T >= 3. Returns scores (N, 1, H/8, W/8) and features."""
        change = MOTION_GAIN * clip.diff(dim=1)
        pairs = torch.cat([change[:, :-1], change[:, 1:]], dim=2)
        x = rearrange(pairs, "b t c h w -> (b t) c h w")
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.last(x), features


class FeatureDiscriminator(nn.Module):
    """Judges VGG-16's features of a frame: it knows from the start what a discriminator of pixels
    learns first (projected GANs, arXiv 2111.01007)."""

    TAPS = (("conv2_2", 128), ("conv3_3", 256), ("conv4_3", 512))

    def __init__(self, width: int, features: VggFeatures) -> None:
        super().__init__()
        self.vgg = features
        self.heads = nn.ModuleList(
            nn.Sequential(
                _normed(nn.Conv2d(inside, 2 * width, 1)),
                nn.LeakyReLU(0.2),
                _normed(nn.Conv2d(2 * width, 2 * width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 1, 3, padding=1),
            )
            for _, inside in self.TAPS
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W). Returns scores (N, P), of all positions of all layers it looks at."""
        taps = self.vgg.taps(x, [name for name, _ in self.TAPS])
        scores = [head(tap) for head, tap in zip(self.heads, taps, strict=True)]
        return torch.cat([score.flatten(1) for score in scores], dim=1)


def _normed(layer: nn.Conv2d) -> nn.Module:
    return spectral_norm(layer)
