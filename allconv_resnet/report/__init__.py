"""The report: a page of tables and figures, made from the logs of any directory of runs.

`allconv-resnet report DIR` writes `DIR/README.md`. A file `DIR/page.py` may say what the page must show, in the words
that this package exports; without one the page has a single table of all trainings.

Example:

    # DIR/page.py
    from allconv_resnet.report import Claim, Page, Section, Training

    PAGE = Page(
        introduction="# My runs",
        sections=(
            Section(
                "Learning rates",
                "Each training differs from the first in its learning rate.",
                (
                    Training("slow", "The learning rate is 0.01.", "python train_cifar.py --learning-rate 0.01"),
                    Training("fast", "The learning rate is 0.1.", "python train_cifar.py --learning-rate 0.1"),
                ),
                figure="rates.png",
            ),
        ),
        claims=(Claim("The larger rate has less test error.", "asked here", lower="fast", higher="slow"),),
    )
"""

from allconv_resnet.report.json_logs import spread
from allconv_resnet.report.page import (
    HOW_TO_READ,
    Claim,
    Comparison,
    Measurement,
    Page,
    Section,
    Training,
    neutral_page,
    read_page,
)
from allconv_resnet.report.write import write_report

__all__ = [
    "HOW_TO_READ",
    "Claim",
    "Comparison",
    "Measurement",
    "Page",
    "Section",
    "Training",
    "neutral_page",
    "read_page",
    "spread",
    "write_report",
]
