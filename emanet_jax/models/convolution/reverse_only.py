"""An identity whose derivative exists in reverse mode alone.

JAX evaluates tangents in forward mode and transposes them in reverse mode, also
where a function was jitted before it is differentiated. What a tangent passes
through here can only be transposed: evaluated, it ends in an error that says
what to do, where a `custom_vjp` function would only say what does not work.
"""

from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from emanet_jax.array import Array


def reverse_only(x: Float[Array, '...']) -> Float[Array, '...']:
  """Returns x.

  Raises:
    TypeError: Where a tangent of it is computed (`jax.jvp`, `jax.jacfwd`,
      `jax.hessian`, a call of what `jax.linearize` returned).
  """
  return _identity.bind(x)


def _refuse(*_, **__):
  raise TypeError(
    'the fast convolutions and batch normalisation have no forward-mode '
    'derivative (jax.jvp, jax.jacfwd, jax.hessian, jax.linearize): set '
    "model.convolution='flax', which computes the same with JAX's own "
    'derivatives'
  )


_identity = Primitive('reverse_only')
_identity.def_impl(lambda x: x)
_identity.def_abstract_eval(lambda x: x)
mlir.register_lowering(_identity, lambda context, x: [x])
batching.defvectorized(_identity)

_tangent = Primitive('reverse_only_tangent')
_tangent.def_impl(_refuse)
_tangent.def_abstract_eval(lambda x: x)
mlir.register_lowering(_tangent, _refuse)
batching.primitive_batchers[_tangent] = _refuse  # jax.vmap, of a jvp
ad.deflinear2(_tangent, lambda cotangent, _: [cotangent])

# A tangent goes the other way from its value.
ad.defjvp(_identity, lambda tangent, x: _tangent.bind(tangent))
