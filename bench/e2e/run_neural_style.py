"""One contender of race.py: PyPI's neural-style, unchanged; prints the memory it needed at its end.

It imports torchvision for five small transforms. Where torchvision does not import beside the installed torch, these
stand-ins on Pillow and NumPy take their place; none of them runs inside a step.
"""

import importlib
import resource
import sys
import types

import numpy as np
import torch
from PIL import Image

try:
    importlib.import_module("torchvision.transforms")
except Exception:
    transforms = types.ModuleType("torchvision.transforms")

    class Compose:
        def __init__(self, steps):
            self.steps = steps

        def __call__(self, x):
            for step in self.steps:
                x = step(x)
            return x

    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]

        def __call__(self, x):
            return (x - self.mean) / self.std

    transforms.Compose, transforms.Normalize = Compose, Normalize
    transforms.Lambda = lambda function: function
    transforms.Resize = lambda size: lambda image: image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    transforms.ToTensor = lambda: lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    transforms.ToPILImage = lambda: lambda x: Image.fromarray((x.permute(1, 2, 0) * 255).byte().numpy())
    package = types.ModuleType("torchvision")
    package.transforms = transforms
    sys.modules.update({"torchvision": package, "torchvision.transforms": transforms})

sys.stdout.reconfigure(line_buffering=True)
sys.argv[0] = "neural-style"
peer = importlib.import_module("neural_style.neural_style")
peer.main()
print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
