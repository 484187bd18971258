"""Image sets: their registry, their decoded and cached arrays, and batches of them on the device.

What belongs here: sources of images, and their processing before the network. To add a family of image sets, add a
module here with a dictionary DATA_SETS, name -> ``registry.ImageSet``; nothing else needs an edit. An image set
outside this package is named by its import path, ``package.module:object``.

Public: ``registry.get``, ``images.load``, ``images.identify`` and ``images.digest``, none of which imports torch;
``batches.load`` and ``batches.Batches``, which do.
"""
