"""Which group a request belongs to, and what a configuration of groups may not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from segue_cloud.cluster.groups import Group, Groups
from segue_cloud.config import GroupConfig, KeepConfig, ServeConfig
from segue_cloud.serve import configured_groups
from segue_protocol.errors import InvalidRequest
from segue_protocol.tuning import Targets


def _encode(text: str) -> Sequence[int]:
    return list(text.encode())


GROUPS = Groups.from_config(
    [
        GroupConfig(name="chat", labels=("chat", "voice")),
        GroupConfig(name="code", labels=("code",), prompt_prefix="You compile."),
        GroupConfig(name="rest"),
        GroupConfig(name="poems", prompt_prefix="You"),
    ],
    _encode,
)


@pytest.mark.parametrize(
    ("label", "prompt", "name"),
    [
        ("voice", "You compile. Now.", "chat"),  # the label goes before the prefix
        ("code", "anything", "code"),
        ("", "You compile. Now.", "code"),
        ("", "You compile.", "code"),
        ("", "You sing.", "poems"),
        ("", "Yo", "rest"),
        ("", "Hello", "rest"),  # though a group after it names a prefix
    ],
)
def test_the_group_of_a_request(label: str, prompt: str, name: str) -> None:
    assert GROUPS.of(label, _encode(prompt)).name == name


def test_an_unknown_label_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"'speech'.*chat, code, voice") as caught:
        GROUPS.of("speech", [1])
    assert (caught.value.reason, caught.value.param) == ("UNKNOWN_LABEL", "label")
    with pytest.raises(InvalidRequest, match="no labels"):
        Groups().of("chat", [1])


def test_a_request_that_no_group_takes_is_refused() -> None:
    only = Groups([Group("chat", labels=("chat",))])
    with pytest.raises(InvalidRequest, match="known labels are chat") as caught:
        only.of("", [1, 2])
    assert caught.value.reason == "NO_GROUP"


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ([Group("a", labels=("x",)), Group("a")], "'a' stands twice"),
        ([Group("")], "name in groups is empty"),
        ([Group("a", labels=("",))], "label in groups is empty"),
        ([Group("a", labels=("x",)), Group("b", labels=("y", "x"))], "'x' stands twice"),
        ([Group("a"), Group("b")], "'a' and 'b' name neither"),
    ],
)
def test_unclear_groups_are_refused(groups: list[Group], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        Groups(groups)


def test_tokens_that_are_shared_by_everybody() -> None:
    group = Group(shared_prefixes=((1, 2, 3), (1, 2, 4, 5)))
    prompts = ([1, 2, 4, 5, 6], [1, 2, 3], [1, 9], [2, 1], [])
    assert [group.shared_tokens(each) for each in prompts] == [4, 3, 1, 0, 0]
    assert Group().shared_tokens([1, 2]) == 0


def test_without_groups_there_is_one() -> None:
    (only,) = configured_groups(ServeConfig(prefill_workers=3, decode_workers=2))
    assert (only.name, only.prefill_workers, only.decode_workers) == ("default", 3, 2)


def test_aggregated_workers_have_no_ratio_to_keep() -> None:
    (only,) = configured_groups(ServeConfig(prefill_workers=0, aggregated_workers=2))
    assert (only.prefill_workers, only.aggregated_workers) == (0, 2)
    with pytest.raises(InvalidRequest, match="aggregated or unified workers, which have no"):
        configured_groups(ServeConfig(groups=(GroupConfig(aggregated_workers=2, auto_ratio=True),)))


def test_numbers_of_workers_that_contradict_are_refused() -> None:
    groups = (GroupConfig(name="chat"),)
    assert configured_groups(ServeConfig(groups=groups)) == groups
    with pytest.raises(InvalidRequest, match="beside groups"):
        configured_groups(ServeConfig(groups=groups, decode_workers=2))
    with pytest.raises(InvalidRequest, match="'chat' are 1, -1, 0 and 0"):
        configured_groups(ServeConfig(groups=(GroupConfig(name="chat", decode_workers=-1),)))


def test_targets_and_qualities_of_a_group() -> None:
    plain, tuned = (
        GroupConfig(),
        GroupConfig(ttft_s=0.4, tpot_s=0.1, quality_floor=0.9, keep=(KeepConfig(0.5, 0.96),)),
    )
    assert Groups.from_config([plain], _encode).of("", [1]).targets == Targets(quality_floor=0.95)
    group = Groups.from_config([tuned], _encode).of("", [1])
    assert group.targets == Targets(ttft_s=0.4, tpot_s=0.1, quality_floor=0.9)
    assert group.quality == ((0.5, 0.96),)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ttft_s": -1.0}, "ttft_s is -1.0 in group 'chat', expected seconds"),
        ({"tpot_s": float("nan")}, "tpot_s is nan"),
        ({"quality_floor": 1.5}, "quality_floor is 1.5"),
        ({"keep": (KeepConfig(0.0, 0.9),)}, "ratio 0.0 with the quality 0.9"),
        ({"keep": (KeepConfig(0.5, 1.1),)}, "ratio 0.5 with the quality 1.1"),
    ],
)
def test_targets_that_make_no_sense_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Groups.from_config([GroupConfig(name="chat", **wrong)], _encode)
