"""All access to object storage and file systems: whole objects, listings, retries and leases."""

from stylemill.storage.options import StorageOptions
from stylemill.storage.storage import Storage
from stylemill.storage.store import ObjectStat
from stylemill.storage.uri import join, resolve

__all__ = ["ObjectStat", "Storage", "StorageOptions", "join", "resolve"]
