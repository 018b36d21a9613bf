"""What makes XLA compile quickly on CPUs, for programs that run but once."""

import importlib.metadata

# LLVM optimises little, which halves the time of compiling; and works on one
# module.
QUICKLY = (
  '--xla_backend_optimization_level=0 '
  '--xla_llvm_disable_expensive_passes=true '
  '--xla_cpu_parallel_codegen_split_count=1'
)
# Loops go to it in the old way, without MLIR, which leaves a quarter of the
# time. Newer ones know no old way, and end the process at a flag that is gone.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  QUICKLY += ' --xla_cpu_use_fusion_emitters=false'

# For programs that are kept, and run by many processes: the first takes a fifth
# longer, the others a quarter less.
OFTEN = QUICKLY.replace('optimization_level=0', 'optimization_level=1')

# Variables of such a program that is started on its own; operations do not tell
# which lines they come from.
QUICK_PROGRAM = {
  'JAX_PLATFORMS': 'cpu',
  'JAX_TRACEBACK_IN_LOCATIONS_LIMIT': '0',
  'XLA_FLAGS': QUICKLY,
}
