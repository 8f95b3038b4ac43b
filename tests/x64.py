"""Float64 within a `with`, under the name that each version of JAX has for it."""

import jax

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
