"""Files that hold the weights of a network of features."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def read_features(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file by name. Raises ValueError when it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
