"""The optimizer of the training loop: AdamW on the functional form of torch.

Contract: the state is plain tensors by name; the same gradients give the same weights as
`torch.optim.AdamW(fused=True)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPSILON = 1e-8
LONGEST_GRADIENT = 1.0


class AdamW:
    """AdamW with its moments as lists of tensors.

    Parameters
    ----------
    parameters : what is trained. weight_decay : share of a weight taken off per step, times the learning rate.
    longest : a gradient that is longer, of all parameters together, counts as one of this length in its direction.

    Source: Loshchilov and Hutter 2019. The class `torch.optim.AdamW` loads torch's compiler when it is first made,
    which takes a second: as long as many a fit.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = AdamW([weight], weight_decay=0.0)
    >>> weight.square().sum().backward()
    >>> optimizer.step(lr=0.1)
    >>> round(weight.item(), 3)
    0.9
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float, longest: float = math.inf) -> None:
        self.parameters, self.weight_decay, self.longest = list(parameters), weight_decay, longest
        self._moments = {
            "exp_avg": [torch.zeros_like(parameter) for parameter in self.parameters],
            "exp_avg_sq": [torch.zeros_like(parameter) for parameter in self.parameters],
            "step": [torch.zeros((), device=parameter.device) for parameter in self.parameters],
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters that have a gradient by one step, and forget the gradients."""
        moved = [place for place, parameter in enumerate(self.parameters) if parameter.grad is not None]
        gradients = [gradient for parameter in self.parameters if (gradient := parameter.grad) is not None]
        means, squares, steps = ([self._moments[name][place] for place in moved] for name in self._moments)
        too_long = None
        if self.longest < math.inf and gradients:
            length = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
            too_long = (length / self.longest).clamp_min(1).float()  # the only type that torch reads
        adamw(
            [self.parameters[place] for place in moved],
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            grad_scale=too_long,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Moments by position and name."""
        return {
            f"{place}.{name}": tensor for name, tensors in self._moments.items() for place, tensor in enumerate(tensors)
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up the moments of a saved run."""
        for name, tensors in self._moments.items():
            for place, tensor in enumerate(tensors):
                tensor.copy_(state[f"{place}.{name}"])
