"""Parts of a run that are found by name: each is one file in its folder.

Heads, backbones, losses, optimizers, augmentations and metrics are parts. A
part's file holds a function `create`. What it takes by position is given by the
code that asks for it (the folder's `__init__` says what that is); what it takes
by keyword are the part's options: name and default stand in the signature, the
meaning in the docstring, the checks in the body. The configuration's sections
are made from these signatures, so adding a part touches no other file.

A backbone's, head's or optimizer's file may also name options that do not bind
a checkpoint: FREE_ON_RESUME, those that a run may change when it goes on;
FREE_IN_EVALUATION, those that only training reads.

Files whose names begin with an underscore are no parts.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import types
from typing import Any

from emanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Folder:
  """A kind of parts.

  Attributes:
    package: Whose modules they are.
    key: Of its section in the configuration, for messages.
  """

  package: str
  key: str

  def names(self) -> list[str]:
    """The parts that there are, sorted."""
    path = importlib.import_module(self.package).__path__
    found = (module.name for module in pkgutil.iter_modules(path))
    return sorted(name for name in found if not name.startswith('_'))

  def module(self, name: str) -> types.ModuleType:
    """A part's file.

    Raises:
      UserError: There is none of this name; the known ones are listed.
    """
    if name not in self.names():
      raise UserError(
        f'{self.key}.name is {name!r}; known are {", ".join(self.names())}'
      )
    return importlib.import_module(f'{self.package}.{name}')

  def options(self, name: str) -> dict[str, Any]:
    """A part's options and their defaults, in the order of its signature."""
    parameters = inspect.signature(self.module(name).create).parameters
    return {
      key: parameter.default
      for key, parameter in parameters.items()
      if parameter.kind is parameter.KEYWORD_ONLY
    }

  def create(self, name: str, *given: Any, **options: Any) -> Any:
    """Calls a part's `create`.

    Args:
      name: Of the part.
      *given: What its folder gives to each part.
      **options: Its options; those left out have their defaults.

    Raises:
      UserError: An unknown part, an option that it does not have, or a value
        that it refuses.
    """
    known = self.options(name)
    if unknown := sorted(options.keys() - known):
      raise UserError(
        f'{self.key}.{unknown[0]}: {name!r} has no such option; it has '
        f'{", ".join(known) or "none"}'
      )
    return self.module(name).create(*given, **options)

  def free(self, name: str, *, evaluating: bool) -> tuple[str, ...]:
    """Options of a part that need not be as in the checkpoint it goes with."""
    module = self.module(name)
    found = getattr(module, 'FREE_ON_RESUME', ())
    if evaluating:
      found += getattr(module, 'FREE_IN_EVALUATION', ())
    return found


HEADS = Folder('emanet_jax.models.heads', 'model.head')
AUXILIARY_HEADS = Folder('emanet_jax.models.heads', 'model.auxiliary_head')
BACKBONES = Folder('emanet_jax.models.backbones', 'model.backbone')
LOSSES = Folder('emanet_jax.training.losses', 'loss')
OPTIMIZERS = Folder('emanet_jax.training.optimizers', 'optimizer')
AUGMENTATIONS = Folder(
  'emanet_jax.data.input.augmentations', 'data.augmentations'
)
METRICS = Folder('emanet_jax.evaluation.metrics', 'eval.metrics')


def chosen(section: Any, *own: str) -> tuple[str, dict[str, Any]]:
  """The name that a section of the configuration chooses, and its options.

  Args:
    section: A ConfigDict with `name`, the part's options, and keys of its own.
    *own: The latter.
  """
  options = {k: v for k, v in section.items() if k not in ('name', *own)}
  return section['name'], options
