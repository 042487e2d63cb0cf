"""What a checkpoint may say of its sampler: settings of diffusers' schedulers that leave a step linear.

A program holds a sampler as a table of coefficients (see `kind_core.schedule`), so what clips, thresholds or draws
noise within a step is not among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from kind_core.errors import ConfigError

Setting = bool | int | float | str
Allowed = type | tuple[Setting, ...]
_SPACINGS = ("leading", "linspace", "trailing")
_SIGMAS: dict[str, type] = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), bool)
# The values that each may have, or their type, by sampler.
SAMPLER_SETTINGS: Mapping[str, Mapping[str, Allowed]] = {
    "ddim": {"timestep_spacing": _SPACINGS, "steps_offset": int, "set_alpha_to_one": bool},
    "dpmpp": {
        "timestep_spacing": _SPACINGS,
        "steps_offset": int,
        "solver_order": (1, 2),
        "solver_type": ("midpoint", "heun"),
        "algorithm_type": ("dpmsolver", "dpmsolver++"),
        "lower_order_final": bool,
        "euler_at_final": bool,
        "use_lu_lambdas": bool,
        "flow_shift": float,
        "final_sigmas_type": ("zero", "sigma_min"),
        "lambda_min_clipped": float,
        **_SIGMAS,
    },
    "euler": {"shift": float, "shift_terminal": float, **_SIGMAS},
}


def check_settings(sampler: str, known: Mapping[str, Allowed], settings: Mapping[str, object]) -> None:
    """Raise ConfigError for the first of `settings` that the sampler does not have, or not with that value."""
    for name, value in settings.items():
        if name not in known:
            raise ConfigError(f"sampler {sampler!r} has no setting {name!r}, expected one of {', '.join(known)}")
        check_setting(name, value, known[name])


def check_setting(name: str, value: object, expected: Allowed, source: str = "") -> None:
    """Raise ConfigError, naming `source`, unless `value` is one of `expected` or of that type and finite."""
    if isinstance(expected, tuple):
        is_right = any(type(value) is type(one) and value == one for one in expected)
        words = f"one of {', '.join(map(str, expected))}"
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_right = isinstance(value, bool) if expected is bool else is_number
        is_right = is_right and (expected is not int or isinstance(value, int)) and math.isfinite(value)  # type: ignore[arg-type]
        words = {bool: "true or false", int: "a whole number"}.get(expected, "a finite number")
    if not is_right:
        raise ConfigError(f"{source}{name} is {value!r}, expected {words}")
