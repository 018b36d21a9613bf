"""What a user gets wrong ends in one line that says what to do."""

import os
import time

import pytest

from tests import tiny

# Name: flags beside those of tiny.flags (None in front: instead of them), and
# what the output has to say.
WRONG = {
  'data set': (
    ['--config.data.name=imagenet'],
    ["error: Unknown data set 'imagenet'", 'shapes, voc2012'],
  ),
  'head': (
    ['--config.model.head.name=unet'],
    ["error: in the configuration: model.head.name is 'unet'", 'ema, enc, fcn'],
  ),
  'backbone': (
    ['--config.model.backbone.name=vgg'],
    ["error: in the configuration: model.backbone.name is 'vgg'", 'resnet'],
  ),
  'loss': (
    ['--config.loss.cross_entropy.average=some'],
    ["error: loss.cross_entropy.average is 'some'", "'all'", "'valid'"],
  ),
  'steps': (
    ['--config.train.log_every=0'],
    ['error: train.log_every is 0; it must be ≥ 1'],
  ),
  'mode': (
    ['--mode=test'],
    ['flag --mode=test: value should be one of <train|evaluate|predict'],
  ),
  'misspelt key': (
    ['--config.train.stpes=9'],
    [
      'error: in the configuration: there is no config.train.stpes',
      "Did you mean 'steps'?",
    ],
  ),
  'key of no section': (
    ['--config.loss.class_weights=balanced'],
    [
      'error: in the configuration: there is no config.loss.class_weights',
      'config.loss has cross_entropy, dice, focal',
    ],
  ),
  "another head's option": (
    [
      None,
      '--config=configs/shapes.py',
      '--workdir=nowhere',
      '--config.model.head.num_stages=1',
      '--config.model.head.name=fcn',
    ],
    [
      'error: in the configuration: there is no config.model.head.num_stages',
      "with the name 'fcn', has ",
      'num_convs',
    ],
  ),
  'negated misspelt key': (
    ['--noconfig.data.flpi'],
    ['error: in the configuration: there is no config.data.flpi', "'flip'?"],
  ),
  'key below a value': (
    ['--config.train.steps.more=1'],
    ['error: in the configuration: config.train.steps is a value'],
  ),
  'misspelt config': (
    [None, '--config=configs/vco.py', '--workdir=nowhere'],
    ['error:', 'configs/vco.py'],
  ),
  'argument': (['steps=9'], ['unknown arguments: steps=9']),
  'no workdir, nor a checkpoint in the default one': (
    [None, '--config=configs/voc_r50.py', '--mode=evaluate'],
    [
      'error:',
      '--workdir is not given: it is runs/voc_r50',
      'runs/voc_r50/checkpoints holds no checkpoint',
    ],
  ),
  'home': (
    ['--mode=evaluate', '--workdir=~/nowhere/at all'],
    [f'{os.path.expanduser("~")}/nowhere/at all/checkpoints holds no'],
  ),
  'a file in place of the workdir': (
    ['--workdir=README.md/run'],
    ['error: README.md/run: ', 'README.md is a file; give another place'],
  ),
  'a step to train from': (
    ['--checkpoint=8'],
    ['error: --checkpoint is for evaluation', '/run/checkpoints/8'],
  ),
  'no cluster': (
    ['--distributed=on'],
    ['error: --distributed=on: the processes did not come together', 'launch/'],
  ),
  'a list of no numbers': (
    ["--config.eval.scales=('a',)"],
    ["error: eval.scales is ('a',); give numbers, as \"(0.5, "],
  ),
  'no config': (
    [None, '--workdir=nowhere'],
    ['Flag --config must have a value other than None'],
  ),
  'no checkpoint': (
    ['--mode=evaluate'],
    ['holds no checkpoint; train first', '--mode=train --workdir='],
  ),
  'nothing to predict': (
    ['--mode=predict'],
    ["error: predict.input is '' and predict.split ''; give one"],
  ),
  'predict without checkpoint': (
    ['--mode=predict', '--config.predict.input=docs'],
    ['error:', 'holds no checkpoint; train first'],
  ),
  'no photos': (
    [None, '--config=configs/voc.py'],
    ['error: voc2012 is not prepared in', '--config.data.manual_dir='],
  ),
}


@pytest.mark.parametrize('name', WRONG)
def test_a_mistake_is_explained(name, commands, tmp_path, tmp_path_factory):
  changed, parts = WRONG[name]
  workdir = tmp_path / 'run'
  if changed[0] is None:
    given = list(changed[1:])
    if name == 'no photos':
      given += [f'--workdir={workdir}', f'--config.data.data_dir={workdir}']
  else:
    data_dir = tiny.shared(tmp_path_factory, 'data')
    given = tiny.flags(workdir, data__data_dir=data_dir) + changed
  begin = time.monotonic()
  ended = commands.run('emanet_jax.main', *given)
  assert time.monotonic() - begin < 60
  assert ended.returncode != 0
  output = ended.stdout + ended.stderr
  for part in parts:
    assert part in output
  assert 'Traceback' not in output
  assert 'compiled' not in output
  assert not (workdir / 'checkpoints').exists()
  if parts[0].startswith('error: '):
    assert ended.returncode == 1
    assert len(output[output.index('error: ') :].strip().splitlines()) == 1
