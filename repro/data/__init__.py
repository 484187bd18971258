"""Image sets: which there are, their arrays decoded once, and batches of them on the device.

What may enter: where images come from and what is done to them before a network sees them. A family of image
sets is a module here with a dictionary DATA_SETS, name -> ``registry.ImageSet``; one of one's own is named by its
import path, ``package.module:object``. Nothing else needs to know of it.

Public: ``registry.get``, ``images.load``, ``images.identify`` and ``images.digest``, none of which imports torch;
``batches.load`` and ``batches.Batches``, which do.
"""
