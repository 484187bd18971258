"""Image sets: their registry, their arrays decoded once, and batches of them on the device.

What may enter: where images come from, and how they are processed before a network sees them. A family of image
sets is a module here with a dictionary DATA_SETS, name -> ``registry.ImageSet``; your own is named by its import
path, ``package.module:object``. Nothing else needs an edit.

Public: ``registry.get``, ``images.load``, ``images.identify`` and ``images.digest``, none of which imports torch;
``batches.load`` and ``batches.Batches``, which do.
"""
