"""What a device's memory holds, and what a program needs of it; bytes."""

import jax


def capacity() -> int | None:
  """What programs can have of each device; None on CPUs, which do not say."""
  stats = jax.local_devices()[0].memory_stats()
  return stats.get('bytes_limit') if stats else None


def needed(program: jax.stages.Compiled) -> int:
  """Beyond a program's arguments: its results and what it computes with."""
  plan = program.memory_analysis()
  own = plan.output_size_in_bytes - plan.alias_size_in_bytes
  return own + plan.temp_size_in_bytes


def held(tree) -> int:
  """What arrays take on one of this process's devices."""
  leaves = jax.tree.leaves(tree)
  return sum(leaf.addressable_data(0).nbytes for leaf in leaves)
