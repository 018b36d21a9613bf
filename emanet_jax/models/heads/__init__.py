"""Decode heads, one file each; a file's name is its name in the config.

A head file holds `create(num_classes, norm_momentum, *, option=default, …) ->
nn.Module`. The module turns the backbone's stage features, finest first, into
logits at the last one's size:

  __call__(features, *, train, extent=None) -> [b, h, w, classes]

Where images are smaller than the batch, `extent` is theirs in the last
features, beyond which these are finite but mean nothing: whatever looks further
than a pixel keeps inside it (`models/layers.py`). A head whose logits have
another stage's size says which, `output_stage`, and takes `extents`, those of
all stages, instead. What else training needs is sown, and so are the weights of
attention between positions, for pages of a pixel (`models/outputs.py`); a head
with bases sows their `responsibilities` into `intermediates` instead. A head
with parameters that no gradient ever reaches names them in `frozen_params()`.
"""
