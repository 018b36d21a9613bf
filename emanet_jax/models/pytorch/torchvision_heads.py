"""The names that torchvision gives to the modules of our heads."""

FCN = {
  'classifier.0': 'head/conv/conv',
  'classifier.1': 'head/conv/norm',
  'classifier.4': 'head/classifier',
}
DEEPLAB = {
  **{
    f'classifier.0.convs.{i}.{j}': f'head/branch{i + 1}/{ours}'
    for i in range(4)
    for j, ours in enumerate(('conv', 'norm'))
  },
  'classifier.0.convs.4.1': 'head/image_pool/branch1/conv',
  'classifier.0.convs.4.2': 'head/image_pool/branch1/norm',
  'classifier.0.project.0': 'head/project/conv',
  'classifier.0.project.1': 'head/project/norm',
  'classifier.1': 'head/conv/conv',
  'classifier.2': 'head/conv/norm',
  'classifier.4': 'head/classifier',
}
