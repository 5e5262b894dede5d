"""`python -m allconv_resnet COMMAND ...` is `allconv-resnet COMMAND ...`."""

from allconv_resnet.cli import main

main()
