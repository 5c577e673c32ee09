"""int8 after training: an exported float network made again with integers, calibrated on images."""

from prunit.export.quantising.choosing import Tried
from prunit.export.quantising.making import QuantSettings, quantised
from prunit.export.quantising.ranges import Batches
from prunit.export.quantising.tolerances import computed_in_bf16, loosened

__all__ = ["Batches", "QuantSettings", "Tried", "computed_in_bf16", "loosened", "quantised"]
