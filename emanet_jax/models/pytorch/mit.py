"""The names that mmsegmentation gives to the modules of our backbone `mit`."""

from emanet_jax.models.backbones.mit import REDUCTIONS
from emanet_jax.models.pytorch.resnets import Blocks

_LAYER = {
  'norm1': 'norm_attention',
  'attn.attn.in_proj': 'attention/in_proj',
  'attn.attn.out_proj': 'attention/out_proj',
  'norm2': 'norm_ffn',
  'ffn.layers.0': 'expand',
  'ffn.layers.1': 'depthwise',
  'ffn.layers.4': 'contract',
}
_REDUCE = {'attn.sr': 'attention/reduce', 'attn.norm': 'attention/norm_reduced'}


def mit_modules(stem: dict[str, str], blocks: Blocks) -> dict[str, str]:
  """PyTorch module → our module, without `backbone/`; it has no stem."""
  modules = dict(stem)
  for stage, layers in enumerate(blocks.sizes):
    ours = stage + 1
    modules |= {
      f'layers.{stage}.0.projection': f'patches{ours}/patch',
      f'layers.{stage}.0.norm': f'patches{ours}/norm_patch',
      f'layers.{stage}.2': f'norm_stage{ours}',
    }
    names = _LAYER | (_REDUCE if REDUCTIONS[stage] > 1 else {})
    for i in range(layers):
      for name, module in names.items():
        modules[f'layers.{stage}.1.{i}.{name}'] = f'layer{ours}_{i}/{module}'
  return modules
