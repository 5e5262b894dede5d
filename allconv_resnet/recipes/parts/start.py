"""The start part of a recipe: where the first weights come from, and which layers keep them."""

from allconv_resnet.part import Name, part


@part
class Start:
    """Initial weights from another network, and layers that are not trained."""

    initialize_from: Name | None = None
    """Network whose weights the run begins with: a run directory, a .keras file, an export, or the name of a network
    that comes with the package. Weights of the same name and shape are taken over, and the rest is new."""
    freeze: tuple[Name, ...] = ()
    """Layers that are not trained, such as `stem stage1`; `stage1` means all blocks of the first stage."""
