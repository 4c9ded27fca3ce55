"""Frozen networks that compare pictures: ``pyramid`` without weights, ``vgg16`` and ``vgg19`` with them."""
