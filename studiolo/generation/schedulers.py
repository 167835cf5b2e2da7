"""The samplers an order may ask for, made from the base's own noise schedule."""

import copy

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from studiolo.errors import SettingsError, nearest

SCHEDULERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ancestral": EulerAncestralDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
}
"""diffusers' class for each name; one call of the UNet a step."""


def make_scheduler(base: SchedulerMixin, name: str | None = None) -> SchedulerMixin:
    """A scheduler of its own with the noise schedule of `base`: the one called `name`, or the base's own when None.

    Raises `SettingsError` for an unknown name.
    """
    if name is None:
        return copy.deepcopy(base)
    if name not in SCHEDULERS:
        raise SettingsError(f"no scheduler is called {name!r}; {nearest(name, SCHEDULERS)}")
    return SCHEDULERS[name].from_config(base.config)
