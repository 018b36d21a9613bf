"""The heads of mmsegmentation that attend, as `mmseg_heads` has the others."""

from emanet_jax.models.pytorch.mmseg_heads import (
  CLASSIFIER,
  MmsegHead,
  Size,
  pair,
  pairs,
)


def _with_block(
  title: str,
  name: str,
  theirs: str,
  block: dict[str, str],
  sizes: dict[str, Size],
) -> MmsegHead:
  """A head of `heads/_shared.BlockHead`; a block's modules, its own names."""
  block = {f'{theirs}.{k}': f'block/{v}' for k, v in block.items()}
  return MmsegHead(
    title,
    name,
    (next(iter(block)),),
    {
      **pair('convs.0', 'conv_in'),
      **block,
      **pair('convs.1', 'conv_out'),
      **pair('conv_cat', 'conv_cat'),
      **CLASSIFIER,
    },
    {'channels': ('conv_in/conv', -1)}
    | {key: (f'block/{ours}', axis) for key, (ours, axis) in sizes.items()},
  )


# mmsegmentation has none: names like those of its Non-local block.
_A2 = {
  'conv_a': 'features',
  'conv_b': 'gather',
  'conv_v': 'distribute',
  **pair('conv_out', 'conv_out'),
}
_ANN = {
  **pair('fusion.stages.0.query_project', 'fusion/query'),
  **pair('fusion.bottleneck', 'fuse'),
  **pair('bottleneck', 'conv_in'),
  **pair('context.bottleneck', 'conv_out'),
  **{
    k: v
    for part in ('fusion', 'context')
    for k, v in {
      **pair(f'{part}.stages.0.key_project', f'{part}/key'),
      f'{part}.stages.0.value_project': f'{part}/value',
      f'{part}.stages.0.out_project': f'{part}/out',
    }.items()
  },
  **CLASSIFIER,
}
_CC = {
  **{f'{name}_conv': name for name in ('query', 'key', 'value')},
  'gamma': 'gamma',
}
_DA = {
  **{
    k: v
    for name in ('pam', 'cam')
    for part in ('in', 'out')
    for k, v in pair(f'{name}_{part}_conv', f'{name}_conv_{part}').items()
  },
  **{f'pam.{k}_project': f'pam_block/{k}' for k in ('query', 'key', 'value')},
  **{f'{name}.gamma': f'{name}_block/gamma' for name in ('pam', 'cam')},
  **{f'{name}_conv_seg': f'{name}_classifier' for name in ('pam', 'cam')},
  **CLASSIFIER,
}
_ENC = {
  **pair('bottleneck', 'conv_in'),
  **pair('enc_module.encoding_project', 'context/project'),
  'enc_module.encoding.0': 'context/codes',
  'enc_module.encoding.1': 'context/codes/norm',
  'enc_module.fc.0': 'context/fc',
  'se_layer': 'se_fc',
  **CLASSIFIER,
}
_ENC_LATERAL = {
  **_ENC,
  **pairs('lateral_convs.{}', 'lateral{}', 0, 2),
  **pair('fusion', 'conv_cat'),
}
_GC = {
  'conv_mask': 'mask',
  'channel_add_conv.0': 'reduce',
  'channel_add_conv.1': 'layer_norm',
  'channel_add_conv.3': 'expand',
}
_NON_LOCAL = {
  **{f'{name}.conv': name for name in ('theta', 'phi', 'g')},
  **pair('conv_out', 'conv_out'),
}
_DNL = {'conv_mask': 'mask', **_NON_LOCAL}
_OCR = {
  **pair('0.convs.0', 'region_conv'),
  '0.conv_seg': 'region_classifier',
  **pair('1.bottleneck', 'conv_in'),
  **{
    k: v
    for theirs, ours in {
      'query_project.0': 'query1',
      'query_project.1': 'query2',
      'key_project.0': 'key1',
      'key_project.1': 'key2',
      'value_project': 'value',
      'out_project': 'attended',
      'bottleneck': 'conv_out',
    }.items()
    for k, v in pair(f'1.object_context_block.{theirs}', ours).items()
  },
  '1.conv_seg': 'classifier',
}
_PSA = {
  **{
    k: v
    for theirs, ours in (('', 'collect'), ('_p', 'distribute'))
    for k, v in {
      **pair(f'reduce{theirs}', f'{ours}/reduce'),
      **pair(f'attention{theirs}.0', f'{ours}/adapt'),
      f'attention{theirs}.1': f'{ours}/offsets',
    }.items()
  },
  **pair('proj', 'project'),
  **pair('bottleneck', 'conv_cat'),
  **CLASSIFIER,
}
HEADS = (
  _with_block(
    'A²-Net',
    'a2',
    'a2_block',
    _A2,
    {'inner_channels': ('features', -1), 'num_maps': ('gather', -1)},
  ),
  MmsegHead(
    'ANNNet',
    'ann',
    ('fusion.stages.0.query_project.conv',),
    _ANN,
    {
      'channels': ('conv_in/conv', -1),
      'inner_channels': ('fusion/value', -1),
    },
    copies={'context.stages.0.query_project': 'context.stages.0.key_project'},
  ),
  _with_block('CCNet', 'cc', 'cca', _CC, {'inner_channels': ('query', -1)}),
  MmsegHead(
    'DANet',
    'da',
    ('pam.query_project', 'pam_conv_seg'),
    _DA,
    {
      'channels': ('pam_conv_in/conv', -1),
      'inner_channels': ('pam_block/query', -1),
    },
  ),
  _with_block(
    'DNLNet', 'dnl', 'dnl_block', _DNL, {'inner_channels': ('theta', -1)}
  ),
  *(
    MmsegHead(
      title,
      'enc',
      marks,
      modules,
      {
        'channels': ('conv_in/conv', -1),
        'num_codes': ('context/codes', 0),
      },
      {'use_lateral': modules is _ENC_LATERAL},
    )
    for title, marks, modules in (
      (
        'EncNet with laterals',
        ('enc_module.fc.0', 'lateral_convs.0.conv'),
        _ENC_LATERAL,
      ),
      ('EncNet', ('enc_module.fc.0',), _ENC),
    )
  ),
  _with_block(
    'GCNet', 'gc', 'gc_block', _GC, {'inner_channels': ('reduce', -1)}
  ),
  _with_block(
    'Non-local network',
    'nonlocal',
    'nl_block',
    _NON_LOCAL,
    {'inner_channels': ('theta', -1)},
  ),
  MmsegHead(
    'OCRNet',
    'ocr',
    ('1.object_context_block.value_project.conv',),
    _OCR,
    {
      'channels': ('conv_in/conv', -1),
      'inner_channels': ('value/conv', -1),
      'region_channels': ('region_conv/conv', -1),
    },
  ),
  MmsegHead(
    'PSANet',
    'psa',
    ('attention_p.1',),
    _PSA,
    {'channels': ('conv_cat/conv', -1), 'mask_size': ('collect/offsets', 0)},
    {'padded': True},
  ),
)
