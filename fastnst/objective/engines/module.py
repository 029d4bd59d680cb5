"""The engine for a module of the user's: autograd through the module, the losses as in the other engines."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastnst.losses.autograd import leaf, recording
from fastnst.objective.engines.plain import Activations, PlainEngine
from fastnst.objective.terms import LayerTerms, add_gradient_, content_value, style_value_and_gradient


class ModuleEngine(PlainEngine):
    """The gradients of the losses by the features, and autograd from there to the image."""

    def evaluate(self, image: Tensor, other: Callable[[], Tensor] | None = None) -> tuple[list[Tensor], Tensor]:
        """As :meth:`PlainEngine.evaluate`."""
        with recording():
            free = leaf(image)
            features = self.network.features(free, self.terms)
        activations = Activations({name: x.detach() for name, x in features.items()})
        with torch.no_grad():
            for layer in self.chain:
                if layer.name in self.terms:
                    self._add_values(layer.name, self.terms[layer.name], activations)
            self._add_joint(image, activations)
            gradients = []
            for name, x in activations.features.items():
                grad = torch.zeros_like(x)
                add_gradient_(grad, x, self.terms[name], activations.gradients.get(name, ()), relu=False)
                gradients.append(grad)
        (found,) = torch.autograd.grad(list(features.values()), free, gradients)
        with torch.no_grad():
            for more in (activations.image_gradient, None if other is None else other()):
                if more is not None:
                    found = found + more
        return activations.values, found.contiguous()

    def _add_values(self, name: str, terms: LayerTerms, activations: Activations) -> None:
        """Add the values of a layer's losses, and the gradients of its style terms."""
        x = activations.features[name]
        if terms.styles:
            value, activations.gradients[name] = style_value_and_gradient(x, terms)
            activations.values.append(value)
        if terms.target is not None:
            activations.values.append(content_value(x, terms))
