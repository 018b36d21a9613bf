"""What a program sets of its own process before it uses JAX."""

import ctypes
import glob
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import threading
import time
import warnings
from pathlib import Path

import jax
from absl import logging
from etils import epath

from emanet_jax.runtime import places

PROGRAMS = '~/.cache/emanet_jax'  # where compiled ones are kept by default

# mallopt's names for what keep_freed_memory sets, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def cache_compilations(folder: str) -> None:
  """Keeps compiled programs in a folder, for later starts on such a machine.

  A folder that JAX has been told already (JAX_COMPILATION_CACHE_DIR) stays, a
  bucket too.

  Args:
    folder: '' keeps nothing; nor does one of this machine that cannot be
      written to, which is logged; gs://BUCKET/FOLDER is a bucket's. Machines
      with different processors have folders of their own below it: programs for
      the one can crash on the other.

  Raises:
    UserError: It is another URL, or a bucket that cannot be written to.
  """
  if folder and not jax.config.jax_compilation_cache_dir:
    place = places.as_path(folder)
    try:
      place = places.absolute(place.expanduser()) / _processor()
      if places.is_bucket(place):
        places.check_folder(place)
      else:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK):
          raise PermissionError(f'{place} cannot be written to')
    except (OSError, RuntimeError) as error:  # no home, no room, no right
      logging.info('programs are not kept for later starts: %s', error)
      return
    jax.config.update('jax_compilation_cache_dir', str(place))
  if jax.config.jax_compilation_cache_dir:
    if places.is_bucket(jax.config.jax_compilation_cache_dir):
      # Of GPUs: XLA would fail to keep its autotuning beside the programs.
      jax.config.update('jax_persistent_cache_enable_xla_caches', 'none')
    else:  # a bucket holds no halves, and cannot be read at times
      _replace_damaged_programs()
    logging.info(
      'programs are kept for later starts in %s',
      jax.config.jax_compilation_cache_dir,
    )


def _replace_damaged_programs() -> None:
  """Deletes what JAX warns that it could not read, so that it is kept anew.

  JAX compiles the program then, but leaves in the folder what is there: each
  later start would fail on it again. Its warning names the program, of which
  there may be several, for other shapes: they go, too.
  """
  show = warnings.showwarning

  def delete(message, *args, **kwargs):
    found = re.match(
      "Error reading persistent compilation cache entry for '(.+?)'",
      str(message),
    )
    if not found:
      show(message, *args, **kwargs)
      return
    folder = epath.Path(jax.config.jax_compilation_cache_dir)
    logging.warning('a kept program is damaged and replaced: %s', message)
    for program in folder.glob(f'{glob.escape(found[1])}-*-cache'):
      program.unlink(missing_ok=True)

  warnings.showwarning = delete


def keep_freed_memory() -> None:
  """Lets a process that computes on the CPU keep the memory that it has had.

  A training step takes its memory anew from the system each time, and its
  first touch of every page costs a quarter of a CPU step or more. Only glibc's
  allocator can be told; only before JAX first uses a device; and only where JAX
  is installed without an accelerator's plugin, or JAX_PLATFORMS is 'cpu': hosts
  of accelerators have better uses for their memory.

  The price is memory, since freed pieces do not always fit what comes next: a
  thread looks every second, and gives all that is free back to the system
  where the process holds over twice what it ever used, and 256 MB. Programs run
  in the thread that calls them: one has freed its memory before the next. Other
  threads have arenas of their own, without which compilers wait for each other;
  they keep pieces of less than 64 MB.
  """
  if _has_accelerator() or platform.libc_ver()[0] != 'glibc':
    return
  libc = ctypes.CDLL(None)
  libc.mallopt(_MMAP_MAX, 0)
  libc.mallopt(_TRIM_THRESHOLD, -1)
  libc.mallopt(_TOP_PAD, 64 << 20)
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  if hasattr(libc, 'mallinfo2'):  # glibc 2.33
    threading.Thread(target=_bound_memory, args=(libc,), daemon=True).start()


def give_back_memory() -> None:
  """Gives memory back that a compilation leaves and that is not needed again.

  JAX's caches are emptied: functions compiled ahead of time stay, jitted ones
  are traced and compiled, or read from the folder of kept programs, when they
  are called again. Then, if the allocator is glibc's, the free pieces in the
  arenas of the compiler's threads go back to the system.
  """
  jax.clear_caches()
  if platform.libc_ver()[0] == 'glibc':
    ctypes.CDLL(None).malloc_trim(0)


def _bound_memory(libc) -> None:
  """Looks at this process's memory for as long as it lives."""
  libc.mallinfo2.restype = _MallocInfo
  page, used = os.sysconf('SC_PAGE_SIZE'), 0
  while True:
    time.sleep(1)
    pages = Path('/proc/self/statm').read_text().split()
    held = (int(pages[1]) - int(pages[2])) * page  # but for mapped files
    info = libc.mallinfo2()
    used = max(used, info.uordblks + info.hblkhd)
    if held > 2 * used + (256 << 20):
      libc.malloc_trim(0)


class _MallocInfo(ctypes.Structure):
  """glibc's struct mallinfo2; `uordblks` and `hblkhd`: bytes in use."""

  _fields_ = tuple(
    (name, ctypes.c_size_t)
    for name in (
      *('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd'),
      *('usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'),
    )
  )


def _has_accelerator() -> bool:
  """Whether JAX may run on anything but the CPU, without starting it."""
  if jax.config.jax_platforms:
    return jax.config.jax_platforms != 'cpu'
  plugins = importlib.metadata.entry_points(group='jax_plugins')
  return bool(plugins) or importlib.util.find_spec('libtpu') is not None


def _processor() -> str:
  """Name for machines that run the same machine code."""
  features = platform.processor()
  if os.path.exists('/proc/cpuinfo'):
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    wanted = ('model name', 'flags', 'Features')
    features = '\n'.join(sorted({x for x in lines if x.startswith(wanted)}))
  digest = hashlib.sha256(features.encode()).hexdigest()
  return f'{platform.machine()}-{digest[:8]}'
