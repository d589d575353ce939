"""A name or a path in, a loaded network out; and the one way a checkpoint is written.

A checkpoint is one .safetensors file that describes itself. Its metadata holds, as JSON, the
network's config, the head table and where the tensors came from. Loading is strict.

Beside the network's own decoder a checkpoint may hold others that read the same latents.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.model import decoders
from oasis_cli.model.decoders import AnyDecoder
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.model.routing import HeadTable

FORMAT = "oasis-checkpoint/1"
DEFAULT = "oasis-small"
BESIDE = "encoder."
"""What tensors are called that a file holds beside the network: an encoder, for training alone."""
OTHERS = "decoders."
"""What tensors of other decoders are called; the decoder's kind follows."""
CUT_SHORT = "it may be cut short: compare its size and SHA-256 with where it came from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A checkpoint that comes with the program."""

    file: str
    sha256: str
    about: str

    @property
    def path(self) -> Path:
        """Where the file lies: in the installed package, or in the checkout's weights folder."""
        packaged = Path(__file__).parent / "_weights" / self.file
        return packaged if packaged.exists() else Path(__file__).parents[2] / "weights" / self.file


_REGISTRY = {
    "oasis-small": Entry(
        file="oasis-small.safetensors",
        sha256="d890142d378e84abe0fd01502daa66197abaeb85fc54d9b32505b5a3cbcaea1a",
        about="the default: 10.6 million parameters, for CPUs and GPUs",
    ),
    "oasis-small-dense": Entry(
        file="oasis-small-dense.safetensors",
        sha256="2743cab01235bbccd1f19e1faaa4215dd5e06165a9c77eed49d290e61e2a2e10",
        about="its warm-up with all heads global: what `oasis calibrate-heads` measures",
    ),
}


def registry() -> dict[str, Entry]:
    """Names that `load_model` knows."""
    return dict(_REGISTRY)


def find(name_or_path: str) -> Path:
    """The file behind a name or a path. Raises UsageError when there is none."""
    if name_or_path in _REGISTRY:
        path = _REGISTRY[name_or_path].path
        if not path.is_file():
            raise WeightsError(
                f"the weights of {name_or_path} are not at {path}", hint="install oasis again"
            )
        return path
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"there is no model called {name_or_path!r} and no file of that name",
            hint=f"known models: {', '.join(_REGISTRY)}",
        )
    return path


def load_model(
    name_or_path: str = DEFAULT,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    decoder: str = "auto",
) -> Oasis:
    """Load a network for inference.

    decoder: as for `networks`. Raises UsageError for an unknown name or decoder and WeightsError
    for a file that is not a whole, matching checkpoint.
    """
    path = find(name_or_path)
    about = describe(name_or_path)
    config = next(iter(networks(name_or_path, decoder).values()))
    table = HeadTable(tuple(about["heads"]["layers"]))
    others, prefixes = about.get("decoders", {}), dict[str, str | None]()
    if decoder in others:
        prefixes |= {f"{OTHERS}{decoder}.": "decoder.", "decoder.": None}
    prefixes |= {OTHERS: None} if others else {}
    beside = _metadata(path).get("beside")
    prefixes |= {beside: None} if beside else {}
    state = {name: tensor.to(dtype) for name, tensor in _tensors(path, prefixes).items()}
    _check(state, Oasis.without_data(config), path)
    model = Oasis.from_checkpoint(config, state, table)
    channels_last(model)
    return model.to(device).eval().requires_grad_(False)


def networks(name_or_path: str, decoder: str = "auto") -> dict[str, OasisConfig]:
    """The network with each decoder that a checkpoint holds, by the decoder's kind.

    decoder: the kind that comes first; "auto" is the checkpoint's own. Raises UsageError for one
    that it does not hold, and WeightsError when the description cannot be read.
    """
    about = describe(name_or_path)
    own = OasisConfig.from_dict(about["config"])
    others = {
        kind: OasisConfig.from_dict(about["config"] | {"decoder": config})
        for kind, config in about.get("decoders", {}).items()
    }
    known = {decoders.kind_of(own.decoder): own} | others
    if decoder == "auto":
        return known
    if decoder not in known:
        raise UsageError(
            f"{name_or_path} has no decoder called {decoder!r}", hint=f"it has {', '.join(known)}"
        )
    return {decoder: known[decoder]} | known


def other_decoders(name_or_path: str) -> dict[str, AnyDecoder]:
    """The decoders that a checkpoint holds beside its network's own, in float32, by kind."""
    path, (_, *others) = find(name_or_path), networks(name_or_path).items()
    found = {}
    for kind, config in others:
        state = _tensors(path, {f"{OTHERS}{kind}.": "", "": None})
        with torch.device("meta"):
            found[kind] = decoders.build(config.decoder)
        _check(state, found[kind], path)
        found[kind].load_state_dict({n: x.float() for n, x in state.items()}, assign=True)
    return found


def check_trained(name_or_path: str) -> None:
    """Raise WeightsError for weights that only training can start from: they do not upscale."""
    about = describe(name_or_path)
    if not about["provenance"].get("upscales", True):
        raise WeightsError(
            f"{name_or_path} holds {about['name']}, which was never trained and does not upscale",
            hint=f"start training from it: oasis train --start-from {name_or_path}",
        )


def channels_last(model: torch.nn.Module) -> None:
    """Lay out convolution weights for speed: twice as fast on a CPU."""
    layouts = {torch.nn.Conv2d: torch.channels_last, torch.nn.Conv3d: torch.channels_last_3d}
    for module in model.modules():
        for kind, layout in layouts.items():
            if isinstance(module, kind):
                weight = module.weight.detach().contiguous(memory_format=layout)
                module.weight = torch.nn.Parameter(weight)


def describe(name_or_path: str) -> dict[str, Any]:
    """The metadata of a checkpoint without its tensors: name, config, heads, provenance, and
    the configs of other decoders, if it has any, by kind."""
    path = find(name_or_path)
    metadata = _metadata(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but not an oasis checkpoint",
            hint="use one that oasis wrote; `oasis weights list` names those that come with it",
        )
    try:
        keys = ["name", "config", "heads", "provenance", *({"decoders"} & metadata.keys())]
        return {key: json.loads(metadata[key]) for key in keys}
    except (KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"the description inside {path} is damaged: {error}") from error


def verify(name: str) -> tuple[bool, str]:
    """Whether a bundled checkpoint has the SHA-256 it was released with, and what it has."""
    found = sha256(find(name))
    return found == _REGISTRY[name].sha256, found


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(
    model: Oasis,
    path: Path,
    *,
    name: str,
    provenance: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    beside: dict[str, Tensor] | None = None,
    others: dict[str, AnyDecoder] | None = None,
) -> None:
    """Write a checkpoint, heads in checkpoint order, complete or not at all.

    beside: tensors called `encoder.*` that are no part of the network. others: further decoders, by
    kind, of the same latents. Raises WeightsError when the file cannot be written.
    """
    others = others or {}
    state = model.checkpoint_state() | (beside or {})
    for kind, decoder in others.items():
        state |= {f"{OTHERS}{kind}.{key}": x for key, x in decoder.state_dict().items()}
    state = {key: x.detach().to("cpu", dtype).contiguous() for key, x in state.items()}
    about = {
        "name": name,
        "config": model.config.to_dict(),
        "heads": {"layers": list(model.dit.table.layers)},
        "provenance": provenance,
    }
    if others:
        about["decoders"] = {kind: decoders.to_dict(x.config) for kind, x in others.items()}
    metadata = {"format": FORMAT} | {key: json.dumps(value) for key, value in about.items()}
    if beside:
        metadata["beside"] = BESIDE
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(state, part, metadata)
        part.chmod(0o644)  # the library makes files that only their owner can read
        part.replace(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be written: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _tensors(path: Path, prefixes: dict[str, str | None]) -> dict[str, Tensor]:
    """The tensors of a file.

    prefixes: what names that begin with a key begin with instead, the first that fits; None leaves
    them out.
    """
    try:
        with safe_open(path, "pt") as file:
            state = {}
            for name in file.keys():  # noqa: SIM118
                old = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
                new = prefixes.get(old, "")
                if new is not None:
                    state[new + name.removeprefix(old)] = file.get_tensor(name)
            return state
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is not a whole .safetensors file ({error})",
        hint=CUT_SHORT,
    )


def _check(state: dict[str, Tensor], model: torch.nn.Module, path: Path) -> None:
    """Names and shapes must be those of the model, no more and no less."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = sorted(n for n in wanted.keys() & state.keys() if wanted[n] != state[n].shape)
    for what, names in (("lacks", missing), ("has unknown", extra), ("has misshapen", wrong)):
        if names:
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            raise WeightsError(
                f"{path} does not fit its own config: it {what} {len(names)} tensors ({shown})"
            )
