"""What makes XLA compile quickly on CPUs, for programs that run but once."""

import importlib.metadata

# LLVM optimises little, and works on one module.
_FLAGS = (
  '--xla_llvm_disable_expensive_passes=true '
  '--xla_cpu_parallel_codegen_split_count=1'
)
# Loops go to it in the old way, without MLIR, which leaves a quarter of the
# time. Newer ones know no old way, and end the process at a flag that is gone.
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _FLAGS += ' --xla_cpu_use_fusion_emitters=false'

# Halves the time of compiling.
QUICKLY = f'--xla_backend_optimization_level=0 {_FLAGS}'

# For programs that are kept, and run by many processes: the first takes a fifth
# longer, the others a quarter less.
OFTEN = f'--xla_backend_optimization_level=1 {_FLAGS}'

# Variables of such a program that is started on its own; operations do not tell
# which lines they come from.
QUICK_PROGRAM = {
  'JAX_PLATFORMS': 'cpu',
  'JAX_TRACEBACK_IN_LOCATIONS_LIMIT': '0',
  'XLA_FLAGS': QUICKLY,
}
