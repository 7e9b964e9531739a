"""Where the images of an output folder are: on the local disk or in an object store."""

from pipeline.stores.placement import Addresses, PlacedImage, Stores, local_folder

__all__ = ["Addresses", "PlacedImage", "Stores", "local_folder"]
