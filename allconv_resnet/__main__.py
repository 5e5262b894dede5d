"""`python -m allconv_resnet COMMAND ...` is `allconv-resnet COMMAND ...`."""

import allconv_resnet_command

allconv_resnet_command.main()
