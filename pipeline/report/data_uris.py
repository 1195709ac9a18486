"""Images as the data URIs of a page."""

import base64

_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}


def data_uri(image: bytes) -> str:
    """Returns an encoded JPEG or PNG as a data URI; '' for anything else."""
    kind = next((kind for magic, kind in _MAGIC.items() if image.startswith(magic)), "")
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}" if kind else ""
