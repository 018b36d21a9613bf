"""What makes convolutions fast on CPUs, GPUs and TPUs. You may pass it by.

`conv2d(x, kernel, stride=…, dilation=…)`, and `grouped_conv2d`, compute what
XLA's convolution does, with PyTorch's padding. What is done otherwise, and why:

* 1×1, everywhere: a matrix product, forward and in both gradients.
* Gradient of the filter on CPUs: a product a tap, since XLA takes twice the
  forward pass or more; of dilated filters on GPUs: many small convolutions
  without dilation, since XLA makes a kernel as large as the features
  (`filter_gradient`).
* Wide dilations on CPUs: tap by tap, without the padding that is most of what
  they meet (`conv2d`, `atrous`); many channels there: Winograd's transforms
  (`winograd`). An image's three channels on TPUs: patches (`atrous`).
* In groups (`grouped`) and depthwise (`depthwise`), on CPUs: as a few ordinary
  convolutions, and as sums of shifted products.
* What differs by platform is chosen when XLA compiles (`platforms`).

To read EMANet without it, start at `models/segmenter.py`: layers call
`Conv.convolve` (`models/layers.py`), and `model.convolution='flax'` puts XLA's
convolution and JAX's own derivatives in its place: the same numbers but for
rounding, slower (docs/speed.md has by how much), and differentiable in forward
mode (`jax.jvp`), which the gradients here are not.
"""
