"""Painting one image: what the bulk flow, ``stylemill paint`` and ``StyleModel.paint`` have in common."""
