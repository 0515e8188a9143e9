"""What timm's `VisionTransformer` calls the tensors of our model."""

NAMES = {
    "tokens.patches.proj.": "patch_embed.proj.",
    "tokens.cls": "cls_token",
    "tokens.distilled": "dist_token",
    "distilled_head.": "head_dist.",
    "tokens.registers": "reg_token",
    "tokens.positions": "pos_embed",
    ".scale1.gamma": ".ls1.gamma",
    ".scale2.gamma": ".ls2.gamma",
}
"""Parts of names, ours and timm's. The other names are the same; in each table no part contains another."""


def timm_name(ours: str) -> str:
    """timm's name of a tensor of ours."""
    for part, theirs in NAMES.items():
        ours = ours.replace(part, theirs)
    return ours


def our_name(theirs: str) -> str:
    """Our name of a tensor of timm's; with mean pooling timm calls the last norm `fc_norm`, or, as we do, `norm`."""
    for ours, part in NAMES.items():
        theirs = theirs.replace(part, ours)
    return theirs.replace("fc_norm.", "norm.")
