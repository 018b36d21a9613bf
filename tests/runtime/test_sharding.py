"""Where arrays lie: the same devices in any order, rows within a process."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emanet_jax.errors import UserError
from emanet_jax.runtime import sharding


@pytest.mark.parametrize('fsdp', [1, 2])
def test_a_state_on_devices_in_their_networks_order_can_be_evaluated(fsdp):
  """As `jax.make_mesh` orders those of a TPU slice."""
  devices = jax.local_devices()
  mesh = sharding.create_mesh([devices[i] for i in (0, 1, 3, 2)], fsdp=fsdp)
  weights = np.arange(2.0**15).reshape(2, -1)
  state = jax.device_put(
    {'w': weights}, sharding.state_sharding(mesh, {'w': weights})
  )
  own = sharding.create_mesh(devices)
  batch = jax.device_put(jnp.ones(4), sharding.batch_sharding(own))
  local = sharding.local(state, mesh)
  got = jax.jit(lambda w, x: w + x.sum())(local['w'], batch)
  np.testing.assert_array_equal(got, weights + 4)


def test_rows_of_an_image_must_lie_in_one_process():
  devices = [
    mock.NonCallableMagicMock(spec=jax.Device, id=i, process_index=i // 2)
    for i in range(4)
  ]
  assert sharding.create_mesh(devices, space=2).shape['space'] == 2
  with pytest.raises(UserError, match=r'several processes; each has 2'):
    sharding.create_mesh(devices, space=4)
