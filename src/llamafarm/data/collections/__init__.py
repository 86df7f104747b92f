"""What stands for several data files: a directory, an index of datasets, another tool's config.

settings reads the keys of a file and names every fault; directory, dataset_info and axolotl each
know one kind; expand chooses among them.
"""

from llamafarm.data.collections.collection import Collection
from llamafarm.data.collections.expand import expand

__all__ = ["Collection", "expand"]
