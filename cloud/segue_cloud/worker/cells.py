"""The arithmetic of KV cells that gateway and workers must agree on."""


def cells_needed(prompt_tokens: int, through: int) -> int:
    """KV cells that must be held to produce output indices < through.

    The last token produced needs no cell: nothing is decoded after it.
    """
    return prompt_tokens + through - 1
