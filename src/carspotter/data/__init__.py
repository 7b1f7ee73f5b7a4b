"""Data sets: layouts, splits, and the cache of decoded pictures."""

from carspotter.data.cache import DecodedPictures, decoded_pictures
from carspotter.data.exclusions import Exclusion, read_exclusions, write_exclusions
from carspotter.data.index import Crop, DataSet, ParquetCell, Picture, PictureReader, read_pixels
from carspotter.data.layouts import open_data_set
from carspotter.data.splits import stratified_split, training_parts

__all__ = [
    "Crop",
    "DataSet",
    "DecodedPictures",
    "Exclusion",
    "ParquetCell",
    "Picture",
    "PictureReader",
    "decoded_pictures",
    "open_data_set",
    "read_exclusions",
    "read_pixels",
    "stratified_split",
    "training_parts",
    "write_exclusions",
]
