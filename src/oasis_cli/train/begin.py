"""What a run begins with: its network, new or from a checkpoint, and what lies beside that."""

import torch

from oasis_cli.checkpoints.format import channels_last, load_model, networks, other_decoders
from oasis_cli.errors import UsageError
from oasis_cli.model.decoders.kinds import AnyDecoder
from oasis_cli.model.decoders.wan import WanDecoder
from oasis_cli.model.oasis import Oasis
from oasis_cli.train.grow import grow
from oasis_cli.train.latents import Encoder
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import TrainConfig


def encoder(config: TrainConfig, options: RunOptions, device: torch.device) -> Encoder | None:
    """What makes latents to reach, for a run behind an autoencoder."""
    if not config.behind_autoencoder:
        return None
    if options.encoder is None:
        raise UsageError(
            "this run trains towards latents, and no encoder was given",
            hint="pass --encoder FILE, Wan2.1's autoencoder as .safetensors",
        )
    return Encoder(options.encoder, device)


def network(config: TrainConfig, options: RunOptions, device: torch.device) -> Oasis:
    """The network to train, in float32: a new one, or one from a checkpoint, grown if need be."""
    if options.start_from is None:
        if config.only_decoder:
            raise UsageError(
                "this run trains a decoder alone, and has nothing that makes latents for it",
                hint="pass --start-from FILE",
            )
        model = Oasis(config.model).to(device)
        channels_last(model)
    else:
        start = str(options.start_from)
        decoder = config.look if config.look in networks(start) else "auto"
        model = load_model(start, device=device, decoder=decoder)
        if model.config != config.model:
            try:
                model = grow(model, config.model)
            except ValueError as error:
                raise UsageError(f"{start} does not fit this run's model: {error}") from error
        model.train().requires_grad_(True)
    if config.only_decoder:
        model.requires_grad_(False)
        model.decoder.requires_grad_(True)
    model.dit.checkpointing = config.recompute
    if isinstance(model.decoder, WanDecoder) and config.behind_autoencoder:
        model.decoder.requires_grad_(False)
        model.decoder.checkpointing = config.recompute
    return model


def decoders_beside(config: TrainConfig, options: RunOptions) -> dict[str, AnyDecoder]:
    """The other decoders of the checkpoint to start from, while its latents stay what they are."""
    if options.start_from is None or not (config.behind_autoencoder or config.only_decoder):
        return {}
    found = other_decoders(str(options.start_from))
    found.pop(config.look, None)  # it is the one in training
    return found


def own_decoder(config: TrainConfig, options: RunOptions) -> AnyDecoder | None:
    """The decoder that stays the checkpoint's own, when the one in training lies beside it."""
    if not config.look or options.start_from is None:
        return None
    return load_model(str(options.start_from)).decoder
