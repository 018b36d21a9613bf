"""What makes XLA compile quickly on CPUs, for programs that run but once."""

# LLVM optimises little, which halves the time of compiling; loops go to it in
# the old way, without MLIR, and as one module, which leaves a quarter of that.
QUICKLY = (
  '--xla_backend_optimization_level=0 '
  '--xla_llvm_disable_expensive_passes=true '
  '--xla_cpu_use_fusion_emitters=false '
  '--xla_cpu_parallel_codegen_split_count=1'
)
