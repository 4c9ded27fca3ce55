"""The one seam to object storage and file systems."""

from pipeline.storage.object_stat import ObjectStat
from pipeline.storage.options import StorageOptions
from pipeline.storage.storage import Storage
from pipeline.storage.uri import join, resolve

__all__ = ["ObjectStat", "Storage", "StorageOptions", "join", "resolve"]
