"""What a training run is: model, data, stages. Presets, and TOML files that change them."""

import dataclasses
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from oasis_cli.errors import UsageError
from oasis_cli.model.decoders.wan import WanVAEConfig
from oasis_cli.model.heads.assignment import Rule
from oasis_cli.model.latent import PIXELS
from oasis_cli.model.oasis import BASE, PAPER, SMALL, TINY, OasisConfig
from oasis_cli.train.config_file import changed, read_toml
from oasis_cli.train.data_config import DataConfig

LEAST_SEEN = 32
"""Pixels on a side that the perceptual loss needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much each loss counts; 0 leaves it out."""

    pixel: float = 1.0
    log_error: float = 0.0
    difference: float = 0.5
    warping: float = 0.0
    frequency: float = 0.0
    lattice: float = 0.0
    structure: float = 0.0
    excess: float = 0.0
    hatching: float = 0.0
    colour: float = 0.0
    artifact: float = 0.0
    perceptual: float = 0.0
    """LPIPS on SqueezeNet's features."""
    vgg: float = 0.0
    """Distance of VGG-16's features, as `TrainConfig.vgg_layers` weighs them."""
    teacher: float = 0.0
    """Distance, as `pixel`, to what `RunOptions.teacher` makes of the same clip: a mean of what may
    be there, with less noise in it than the clean clip has (distillation, arXiv 1503.02531)."""
    adversarial_frame: float = 0.0
    """How much each discriminator is heard. `TrainConfig` says when: after `discriminator_warm_up`
    steps, over `adversarial_rise` steps."""
    adversarial_motion: float = 0.0
    adversarial_features: float = 0.0
    matching: float = 0.0
    flow: float = 0.0
    """How far the fusion's flow is from the known motion of filmed photographs."""
    latent: float = 0.0
    """Squared error to the encoder's latents of the clean clip; the only loss if the rest is 0."""

    @property
    def adversarial(self) -> bool:
        """Whether there are discriminators."""
        return any((self.adversarial_frame, self.adversarial_motion, self.adversarial_features))

    @property
    def sees_pixels(self) -> bool:
        """Whether any loss needs frames."""
        return any(weight for name, weight in asdict(self).items() if name != "latent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the run with its own routing, degradations, losses and learning rate."""

    name: str
    share: float
    """Part of the run's minutes or steps."""
    routed: bool = True
    """False: all heads global. The first routed stage calibrates the head table."""
    varying: float = 0.0
    """Share of clips whose degradation varies from frame to frame."""
    rate: tuple[float, float] = (5e-4, 1e-4)
    """Learning rate at the start and the end; a cosine between them."""
    losses: LossWeights = LossWeights()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run does, besides its data and its length."""

    name: str = "oasis-small"
    model: OasisConfig = SMALL
    data: DataConfig = field(default_factory=DataConfig)
    stages: tuple[Stage, ...] = ()
    rule: Rule = Rule(name="budget", budget=0.3)
    """How the first routed stage makes the head table."""
    muon: bool = False
    """Muon for the matrices of the transformer; the rest, and otherwise all, is AdamW."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warm_up: int = 100
    """Steps of rising learning rate at the start of every stage."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    blend: float = 1.0
    """Part of the last stage in the final weights; the rest is the stage before. Perceptual
    losses alone end in fine false texture, and the average of the two weights does not."""
    perceptual_frames: int = 4
    """Frames of a clip that losses on features and on structure look at."""
    vgg_layers: tuple[tuple[str, float], ...] = (
        ("conv1_2", 0.25),
        ("conv2_2", 0.25),
        ("conv3_3", 0.25),
        ("conv4_3", 0.25),
    )
    """Layers that the VGG loss compares, and their weights."""
    vgg_before_relu: bool = False
    vgg_crop: int = 0
    """Side in pixels of the square that the VGG loss looks at, at full resolution; 0 for all."""
    discriminator_rate: float = 1e-4
    discriminator_warm_up: int = 0
    """Steps at the start of an adversarial stage in which the discriminators alone learn, on a
    restorer that stands still: what they say before is noise, and makes grain."""
    adversarial_rise: int = 500
    """Steps after that in which their weights rise from nothing."""
    adversarial_shares: bool = False
    """Weights of discriminators are shares of the gradient that the other losses have on the
    frames: at 0.03 one pulls 0.03 times as hard, however its scores run. 0.3 is too much: what is
    left of the others' gradient is mostly noise, and three at that share spoiled the picture."""
    adversarial_frames: int = 4
    """Frames in a row of a clip that the discriminators look at; motion takes three."""
    only_decoder: bool = False
    """Train the decoder and hold the rest."""
    look: str = ""
    """A name: the trained decoder lies under it in the checkpoint, beside the one of `start_from`,
    which stays the network's own. For `only_decoder`, whose decoders read the same latents."""
    behind_autoencoder: bool = False
    """The decoder is frozen, and an encoder gives the linear map its start and latents to reach."""
    core: int = 16
    """Behind an autoencoder: side, in latent positions, of the square that pixel losses see."""
    recompute: bool = False
    """Recompute blocks in the backward pass instead of storing them: less memory, more time."""
    shard: bool = False
    """Under torchrun, share AdamW's moments out over the processes (ZeRO stage 1, arXiv
    1910.02054): less memory, one more round of messages in a step. Muon's stay whole."""
    save_minutes: float = 2.0
    """Between two saves; a state is about four times as large as the model in float32."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.stages or abs(sum(stage.share for stage in self.stages) - 1) > 1e-6:
            raise UsageError(
                "the stages' shares do not add up to 1",
                hint="a stage's share is its part of the run",
            )
        if self.look and not self.only_decoder:
            raise UsageError(
                f"the decoder {self.look!r} is to lie beside another, and the latents would change",
                hint="set only_decoder = true, or leave look out",
            )
        if self.adversarial_shares and self.behind_autoencoder:
            raise UsageError(
                "adversarial_shares compares gradients on frames, and the latents' loss has none",
                hint="leave it out behind an autoencoder",
            )
        perceptual = any(stage.losses.perceptual or stage.losses.vgg for stage in self.stages)
        if self.behind_autoencoder and perceptual and self.core * PIXELS < LEAST_SEEN:
            raise UsageError(
                f"the perceptual loss cannot look at {self.core * PIXELS} pixels",
                hint=f"core is {LEAST_SEEN // PIXELS} or more",
            )


_FIDELITY = LossWeights(pixel=0.5, log_error=0.05)
_DETAIL = dataclasses.replace(
    _FIDELITY, structure=0.3, perceptual=0.4, vgg=0.35, hatching=4.0, lattice=3.0
)
"""Two networks' features see detail. SqueezeNet's strides reward a weave, which `hatching` hears.
`docs/log.md` has what these weights gave."""

SMALL_RUN = TrainConfig(
    rule=Rule(name="proportion", proportion=(1, 1, 2)),
    data=DataConfig(batch=16, every=16, pool=1024, starved=0.02, uneven=0.1),
    warm_up=150,
    perceptual_frames=2,
    vgg_crop=224,
    stages=(
        Stage(
            name="dense warm-up",
            share=0.06,
            routed=False,
            rate=(1e-3, 1e-3),
            losses=_FIDELITY,
        ),
        Stage(
            name="consistent",
            share=0.44,
            varying=0.2,
            rate=(1e-3, 4e-4),
            losses=_DETAIL,
        ),
        Stage(
            name="varying",
            share=0.5,
            varying=0.5,
            rate=(4e-4, 0.0),
            losses=_DETAIL,
        ),
    ),
)

BASE_RUN = dataclasses.replace(SMALL_RUN, name="oasis-base", model=BASE)
"""For `--start-from` oasis-small, which it grows from."""

SHARP_RUN = dataclasses.replace(
    BASE_RUN,
    data=dataclasses.replace(SMALL_RUN.data, batch=8, sharpened=0.6),
    warm_up=100,
    only_decoder=True,
    look="sharp",
    discriminator_rate=3e-4,
    discriminator_warm_up=700,
    adversarial_shares=True,
    adversarial_rise=400,
    stages=(
        Stage(
            name="sharp",
            share=1.0,
            varying=0.4,
            rate=(6e-5, 3e-5),
            losses=dataclasses.replace(
                _DETAIL,
                log_error=0.02,
                warping=1.0,
                structure=0.2,
                hatching=2.0,
                colour=0.5,
                perceptual=1.0,
                vgg=0.5,
                adversarial_frame=0.15,
                adversarial_motion=0.06,
                adversarial_features=0.15,
            ),
        ),
    ),
)
"""A sharp decoder beside that of oasis-base, for `--start-from` that. With twice the rate and
shares of 0.4 the discriminators were fooled at once and learned nothing any more: grain."""

TINY_RUN = dataclasses.replace(SMALL_RUN, name="oasis-tiny", model=TINY)

PAPER_RUN = TrainConfig(
    name="oasis-1.4b",
    model=dataclasses.replace(PAPER, decoder=WanVAEConfig()),
    data=DataConfig(side=384, crop=320, batch=1, chunk=4, pool=256, every=16),
    betas=(0.9, 0.95),
    weight_decay=1e-4,
    warm_up=500,
    behind_autoencoder=True,
    recompute=True,
    shard=True,
    save_minutes=30.0,
    stages=(
        Stage(
            name="latents",
            share=0.03,
            rate=(2e-5, 2e-5),
            losses=LossWeights(pixel=0.0, difference=0.0, latent=1.0),
        ),
        Stage(
            name="consistent",
            share=0.64,
            rate=(2e-5, 1e-5),
            losses=LossWeights(latent=0.5, perceptual=0.1),
        ),
        Stage(
            name="varying",
            share=0.33,
            varying=0.5,
            rate=(1e-5, 0.0),
            losses=LossWeights(latent=0.1, perceptual=0.1),
        ),
    ),
)
"""The paper's size from Wan2.1's weights. Rates and weights follow DOVE; none was tried at size."""

PRESETS = {
    "small": SMALL_RUN,
    "base": BASE_RUN,
    "sharp": SHARP_RUN,
    "tiny": TINY_RUN,
    "paper": PAPER_RUN,
}


def read_config(source: str) -> TrainConfig:
    """A preset by name, or a TOML file: `preset = "small"` and what differs from it.

    Raises UsageError for an unknown name, a file that cannot be read, and what `changed` refuses.
    """
    if source in PRESETS:
        return PRESETS[source]
    if not os.path.isfile(source):
        raise UsageError(
            f"there is no preset and no file called {source!r}",
            hint=f"presets: {', '.join(PRESETS)}",
        )
    path = Path(source)
    data = read_toml(path)
    base = data.pop("preset", "small")
    if base not in list(PRESETS):  # which takes values of any type
        raise UsageError(f"{path}: preset cannot be {base!r}", hint=f"one of {', '.join(PRESETS)}")
    config: TrainConfig = changed(PRESETS[base], data, path)
    return config
