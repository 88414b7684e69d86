"""Profiles by name: a file of one's own, or coefficients somebody published."""

from __future__ import annotations

from pathlib import Path

from segue_cloud.profiles.base import CloudProfile, DecodeCost, PrefillCost
from segue_protocol.errors import InvalidRequest

_DISTSERVE = "DistServe (arXiv 2401.09670), coefficients of its simulator, milliseconds there"

PUBLISHED: dict[str, CloudProfile] = {
    profile.name: profile
    for profile in (
        CloudProfile(
            name="a100-80g-opt-13b-tp1",
            source=_DISTSERVE,
            model="opt-13b",
            prefill=PrefillCost(18.10e-3, 0.1019e-3, 7.12e-9),
            decode=(
                DecodeCost(19.93e-3, 6.27e-7, 0.0385e-3),
                DecodeCost(7.17e-3, 5.80e-7, 0.158e-3, from_batch=95),
            ),
        ),
        CloudProfile(
            name="a100-80g-opt-66b-tp4",
            source=_DISTSERVE,
            model="opt-66b",
            prefill=PrefillCost(29.44e-3, 0.1514e-3, 8.32e-9),
            decode=(DecodeCost(30.76e-3, 4.52e-7, 0.0633e-3),),
        ),
    )
}


def find_profile(name_or_file: str) -> CloudProfile:
    """The published profile of this name, else the one in this file.

    Raises InvalidRequest when it is neither.
    """
    if name_or_file in PUBLISHED:
        return PUBLISHED[name_or_file]
    if not name_or_file or not Path(name_or_file).exists():
        raise InvalidRequest(
            f"profile is {name_or_file!r}, expected a file made by `segue-cloud profile` or one "
            f"of {', '.join(PUBLISHED)}"
        )
    return CloudProfile.load(Path(name_or_file))
