"""Tools and response formats of requests: docs of a task offer the same ones, which are held once.

A tool is a tree of dozens of small values. Held once per doc they keep the garbage collector busy for longer
than all else takes that is done with the doc, and go to the framework's process once per doc.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

#: So many tools and formats are kept, those that were met last.
_MOST_KEPT = 1_024
#: Longer ones are not kept: memory is bounded by this times their number.
_MOST_BYTES = 8_192


def with_shared_offers(requests: Any) -> Any:
    """The requests of a prompt, in place: each tool and response format is the one object of all equal ones.

    These must not be changed any more. What has not the form of requests is left as it is.
    """
    if isinstance(requests, list):
        for request in requests:
            if isinstance(request, dict):
                tools, form = request.get("tools"), request.get("response_format")
                if isinstance(tools, list):
                    tools[:] = map(_shared, tools)
                if isinstance(form, dict):
                    request["response_format"] = _shared(form)
    return requests


def _shared(offer: Any) -> Any:
    # the order of properties is part of an offer, and so is whether a number is whole: bytes tell
    try:
        text = orjson.dumps(offer, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError:  # deeper than 254 levels, or it holds what JSON lacks
        return offer
    if len(text) > _MOST_BYTES:
        return offer
    first = _first_equal(text)
    # infinities and NaN are written as null
    return first if first == offer else offer


@lru_cache(maxsize=_MOST_KEPT)
def _first_equal(text: bytes) -> Any:
    return orjson.loads(text)
