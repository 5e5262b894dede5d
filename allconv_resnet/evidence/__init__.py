"""What results/ has to show, and its page: the trainings and the measurements, read from their logs.

`report.report` writes results/README.md from these lists and the logs; what has no log is shown as not run.
"""

from allconv_resnet.evidence.comparisons import COMPARISONS, Comparison
from allconv_resnet.evidence.measurements import MEASUREMENTS, Measurement
from allconv_resnet.evidence.trainings import SECTIONS, Section, Training

__all__ = ["COMPARISONS", "MEASUREMENTS", "SECTIONS", "Comparison", "Measurement", "Section", "Training"]
