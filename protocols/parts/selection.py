"""Which weights of a network are worth the pulses and readings of a verify."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rram_hil.engine.protocol import Arrays, Compute, Plan, Setting
from rram_hil.errors import ConfigError
from rram_hil.networks.programmed_network import Programmed
from rram_hil.types import FloatArray
from rram_hil.validation import StrictModel

from .targets import load_images


class Selection(StrictModel):
    """The `fraction` of a network's weights that ranks first `by`: "all" (no ranking, every
    weight); "magnitude", the largest first; "random", in an order that the run's seed gives; or
    "swim".

    SWIM (Yan et al., DAC 2022) ranks by the second derivative of the loss, here to the weight's
    difference of conductances, since cells err in siemens and each layer has its own scale; of
    equal ones the larger weight comes first. It takes `images` of the training images `data` (a
    .npz file) through the network on the host, and needs the extra `[torch]`. Weights are ranked
    over all layers together, and the first of a small fraction are the first of a larger one, too.
    """

    by: Literal["all", "magnitude", "random", "swim"] = "all"
    fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    data: str | None = None
    images: Annotated[int, Field(ge=1)] = 512

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.by == "all" and self.fraction != 1:
            raise ValueError('by "all" has no fraction: rank by magnitude, random or swim')
        if (self.by == "swim") != (self.data is not None):
            raise ValueError('data belongs to by "swim", which needs it: the training images')
        return self

    def cells(self, programmed: Programmed, setting: Setting) -> Plan[NDArray[np.bool_]]:
        """The cells of the chosen weights, both of each pair, as a map of shape `geometry.shape`;
        every cell in use where none are ranked.

        Raises `ConfigError` where weights are to be ranked and there are none, but a bare map.
        """
        mapping = programmed.mapping
        chosen = np.isfinite(mapping.target_map_s)
        if self.by == "all":
            return chosen
        if not mapping.layers:
            raise ConfigError(
                f'select: by "{self.by}" ranks the weights of a network, and a map of targets has'
                ' none; verify it by "all"'
            )
        network, names = programmed.network, [layer.name for layer in mapping.layers]
        # A file of weights without layers leaves those that were mapped, clipped as they are.
        weights = mapping.target_weights() if network is None else network.weights
        size = np.abs(np.concatenate([weights[name].ravel() for name in names]))
        if self.by == "random":
            first: FloatArray = setting.rng("selection").random(size.size)
        elif self.by == "magnitude":
            first = np.zeros(size.size)
        else:
            found = yield from Compute("sensitivities", lambda do: self._swim(programmed, setting))
            first = np.concatenate([found[name].ravel() for name in names])
        count = round(self.fraction * size.size)
        best = np.lexsort((-size, -first))[:count]
        pairs = [np.stack(mapping.pair_index(name)).reshape(2, -1) for name in names]
        chosen[:] = False
        chosen.ravel()[np.concatenate(pairs, axis=1)[:, best]] = True
        return chosen

    def _swim(self, programmed: Programmed, setting: Setting) -> Arrays:
        try:
            from rram_hil import learning
        except ImportError as error:
            raise ConfigError(f"{error}") from None
        network = programmed.topology()
        images, labels = load_images(setting.folder / str(self.data))
        found = learning.weight_sensitivities(
            network.to_torch(),
            learning.LabelledImages(images, labels),
            images=self.images,
            seed=int(setting.rng("sensitivities").integers(1 << 31)),
            threads=setting.threads,
        )
        return {
            name: values * programmed.mapping.layer(name).weight_per_s ** 2
            for name, values in zip(network.matrices, found, strict=True)
        }
