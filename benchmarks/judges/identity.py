"""Identity: is it still the same person?

Portraits that no network was trained on are filmed and damaged as in training. A face network
(dlib's, 128 numbers a face) looks at the clean and at the restored middle frame, both cut out by
the landmarks of the clean one; the score is the distance of the two. Its makers call distances
below 0.6 the same person; the same face in two good photographs has about 0.3.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from judges.cases import Case, Missing, Scores, mean
from judges.damaged import Pixels, damaged, packaged
from judges.legible import as_pixels

PORTRAITS = (
    ("skimage", "data/astronaut.png"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("mahotas", "demos/data/luispedro.jpg"),
)
"""Eileen Collins and Grace Hopper (public domain) and Luis Pedro Coelho (MIT licence)."""
FACE = (110, 190)
"""Widths in pixels at which every face is filmed: 27 and 47 before it is enlarged."""
SIDE = 512
"""Pixels of a portrait that the camera may see."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True, slots=True)
class FaceNetwork:
    """dlib's detector, its five landmarks, and its network."""

    detect: Any
    landmarks: Any
    describe: Any

    def find(self, picture: Pixels) -> Any | None:
        """The rectangle of the surest face, None when there is none."""
        found, scores, _ = self.detect.run(np.array(picture, order="C"), 1, 0.0)
        return found[int(np.argmax(scores))] if len(found) else None

    def distance(self, clean: Pixels, other: Pixels, where: Any) -> float:
        """Between two pictures of one face, which is `where` on the first."""
        # dlib takes neither read-only nor turned arrays.
        pictures = [np.array(picture, order="C") for picture in (clean, other)]
        shape = self.landmarks(pictures[0], where)
        a, b = (np.array(self.describe.compute_face_descriptor(x, shape)) for x in pictures)
        return float(np.linalg.norm(a - b))


@lru_cache
def network() -> FaceNetwork:
    """Raises Missing without the extra `[judge]`."""
    spec = find_spec("face_recognition_models")
    places = spec.submodule_search_locations if spec else None
    try:
        dlib = importlib.import_module("dlib")
    except ImportError as error:
        raise Missing(f"{error}: pip install 'oasis-cli[judge]'") from error
    if not places:
        raise Missing("face_recognition_models is missing: pip install 'oasis-cli[judge]'")
    folder = Path(places[0]) / "models"
    return FaceNetwork(
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )


def portraits(folder: Path | None) -> list[Pixels]:
    """The packaged portraits, and those of a folder; each with its face in the middle, twice."""
    pictures = packaged(*PORTRAITS)
    if folder is not None:
        if not folder.is_dir():
            raise Missing(f"there is no folder {folder}")
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
        pictures += [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return [cut for picture in pictures for width in FACE for cut in _centred(picture, width)]


def _centred(picture: Pixels, width: int) -> list[Pixels]:
    """One square of SIDE pixels whose middle is the face, `width` pixels wide; none without one."""
    face = network().find(picture)
    if face is None:
        return []
    scale = width / face.width()
    x, y = (face.left() + face.right()) / 2, (face.top() + face.bottom()) / 2
    half = SIDE / 2 / scale
    edge = int(half) + 1
    padded = np.pad(picture, ((edge, edge), (edge, edge), (0, 0)), mode="symmetric")
    box = (x - half + edge, y - half + edge, x + half + edge, y + half + edge)
    image = Image.fromarray(padded).resize((SIDE, SIDE), Image.Resampling.LANCZOS, box)
    return [np.asarray(image)]


@dataclass(frozen=True, slots=True)
class Identity:
    """The judge. folder: more portraits that were not trained on."""

    folder: Path | None = None
    clips: int = 12
    frames: int = 5
    seed: int = 23
    name: str = "identity"

    def cases(self) -> Sequence[Case]:
        cases = []
        clips = damaged(portraits(self.folder), self.clips, self.frames, self.seed)
        for number, clip in enumerate(clips):
            clean = as_pixels(clip.clean[self.frames // 2])
            where = network().find(clean)
            if where is not None:  # else something passes before the face
                truth = (clean, where)
                cases.append(Case(name=f"face-{number:02}", low=clip.low, truth=truth))
        return cases

    def score(self, case: Case, out: Tensor) -> Scores:
        clean, where = case.truth
        return {"identity": network().distance(clean, as_pixels(out[len(out) // 2]), where)}

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        return mean(rows)
