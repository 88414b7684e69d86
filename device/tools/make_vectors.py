"""Writes the vectors of the hand-over that every SDK must reproduce.

    python device/tools/make_vectors.py

Where a function of :mod:`segue_device` or :mod:`segue_protocol` decides (when to
take over, what to ask for, when a token is shown, what a prefix hashes to), the
file holds arguments and results. Numbers are exact, as in the sampler's vectors
(``segue_protocol/vectors/sampling.json``); names are those of the Python code,
bytes are hex, infinity is null.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segue_device.catch_up import View, next_work, wait_s
from segue_device.credit import CreditView, next_credit
from segue_device.pacing import Pacer, PaceView, Pacing
from segue_device.state import ACTIONS, MESSAGES, TRANSITIONS, DeviceState
from segue_protocol.frames import bearer_subprotocol, from_close
from segue_protocol.identity import ModelIdentity, compare, exactness_level, merges_digest
from segue_protocol.prefix import prefix_hash
from segue_protocol.reference import logits_from_state, reference_vocabulary, state_of
from segue_protocol.text import TextStream
from segue_protocol.timeline import DeviceProfile, n_star, ready_time_s, stall_free
from segue_protocol.vocabulary import Vocabulary

PATH = Path(__file__).parent.parent / "vectors" / "handover.json"

CASES = 120
DIGEST = bytes(range(32))
CLOSE_CODES = (1000, 1001, 1002, 1006, 1007, 1009, 4400, 4403, 4408, 4411, 4413, 4416, 4417)
TOKENS = ("t", "ab", "a-longer_token", "??>>~~")


def vectors() -> dict[str, list[Any]]:
    """The whole file, one list a section."""
    draw = random.Random(7)
    return {
        "prefix_hash": list(_prefix_hashes(draw)),
        "profile": [_profile(draw) for _ in range(20)],
        "timeline": [_race(draw) for _ in range(CASES)],
        "credit": [_credit(draw) for _ in range(CASES)],
        "catch_up": [_catch_up(draw) for _ in range(CASES)],
        "pacing": [_paced(draw, pacing) for pacing in _pacings()],
        "text": list(_texts(draw)),
        "identity": list(_identities()),
        "reference": [_reference(draw) for _ in range(8)],
        "vocabulary": list(_vocabularies()),
        "states": list(_states()),
        "close": [_closed(code, why) for code in CLOSE_CODES for why in ("", "OVERLOADED")],
        "bearer": [{"token": each, "subprotocol": bearer_subprotocol(each)} for each in TOKENS],
    }


def _prefix_hashes(draw: random.Random) -> Iterable[dict[str, Any]]:
    for prompt, output in ((1, 0), (1, 1), (0, 2), (13, 0), (14, 1), (16, 15), (700, 90)):
        prompt_ids, output_ids = _ids(draw, prompt), _ids(draw, output)
        digest = prefix_hash(prompt_ids, output_ids).hex()
        yield {"prompt_ids": prompt_ids, "output_ids": output_ids, "sha256": digest}
    edge = [0, 2**31, 2**32 - 1]
    yield {"prompt_ids": edge, "output_ids": edge, "sha256": prefix_hash(edge, edge).hex()}


def _ids(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(152_000) for _ in range(count)]


def _profile(draw: random.Random) -> dict[str, Any]:
    profile = DeviceProfile(
        draw.choice([0.0, 0.004]), draw.uniform(1e-5, 0.01), draw.choice([0.0, 3e-7]), 0.05, 0.02
    )
    tokens, done = draw.choice([0, 1, 400, 3000]), draw.choice([0, 1, 256])
    return {
        "profile": asdict(profile),
        "tokens": tokens,
        "done_tokens": done,
        "prefill_s": profile.prefill_s(tokens),
        "prefill_left_s": profile.prefill_left_s(tokens, done),
        "absorb_per_token_s": profile.absorb_per_token_s(tokens),
    }


def _race(draw: random.Random) -> dict[str, Any]:
    race = {
        "prefill_left_s": draw.choice([0.0, 0.3, draw.uniform(0, 9)]),
        "show_interval_s": draw.choice([0.05, draw.uniform(0.01, 0.2)]),
        "absorb_per_token_s": draw.choice([0.0, 0.05, 0.1, draw.uniform(0, 0.05)]),
        "handover_s": draw.choice([0.0, 0.02]),
        "absorb_per_token2_s": draw.choice([0.0, 0.0, 1e-5, 1e-3]),
    }
    tokens = draw.choice([1, 7, 64])
    first_s = draw.uniform(0, 2)
    ready = {each: race[each] for each in ("prefill_left_s", "absorb_per_token_s", "handover_s")}
    return {
        **race,
        "cloud_tokens": tokens,
        "first_token_s": first_s,
        "n_star": n_star(**race),
        "stall_free": stall_free(cloud_tokens=tokens, **race),
        "ready_time_s": ready_time_s(cloud_tokens=tokens, first_token_s=first_s, **ready),
    }


def _credit(draw: random.Random) -> dict[str, Any]:
    view = CreditView(
        credit_through=(through := draw.choice([1, 5, 20, 64])),
        max_tokens=draw.choice([20, 64, 400]),
        shown_tokens=draw.randrange(through + 1),
        show_interval_s=draw.choice([0.05, 0.1]),
        ready_in_s=draw.choice([0.0, 0.4, draw.uniform(0, 5)]),
        absorb_per_token_s=draw.choice([0.0, 0.01, 0.2]),
        cloud_reply_s=draw.choice([0.0, 0.05, 2.0]),
    )
    return {"view": asdict(view), "next_credit": next_credit(view)}


def _catch_up(draw: random.Random) -> dict[str, Any]:
    log = draw.choice([0, 3, 9])
    view = View(
        prefill_left_tokens=draw.choice([0, 0, 0, 5]),
        absorbed_tokens=draw.choice([log, log, max(0, log - 2)]),
        log_tokens=log,
        credit_through=draw.choice([1, 3, 9, 12]),
        device_writes=draw.random() < 0.2,
        cloud_alive=draw.random() < 0.7,
        takeover_forced=draw.random() < 0.2,
        over=draw.random() < 0.1,
        paused=draw.random() < 0.15,
        silence_s=draw.choice([0.0, 0.1, 0.3]),
        patience_s=draw.choice([0.1, 0.2]),
    )
    return {"view": asdict(view), "next_work": next_work(view).name.lower(), "wait_s": wait_s(view)}


def _pacings() -> Iterable[Pacing]:
    yield Pacing()
    yield Pacing(horizon_s=1.0, min_rate_tps=5.0, max_rate_tps=30.0, slew=0.5, flush_s=1.0)
    yield Pacing.off()


def _paced(draw: random.Random, pacing: Pacing) -> dict[str, Any]:
    """One answer as the display asks: due, shown, with a timer that fires late at times."""
    pacer, now_s, steps = Pacer(pacing), 100.0, []
    for shown in range(40):
        view = PaceView(
            backlog_tokens=max(1, 25 - shown // 2),
            show_interval_s=0.05,
            device_rate_tps=draw.uniform(8, 20),
            device_writes=shown > 15,
            complete=shown > 33,
            expected_s=draw.choice([0.0, 0.0, 3.0]),
            cancelled=shown > 38,
        )
        due_s = pacer.due_s(view, now_s)
        now_s = max(now_s, due_s) + draw.choice([0.0, 0.001, 0.3])
        pacer.shown(due_s, now_s)
        steps.append({"view": asdict(view), "due_s": due_s, "shown_s": now_s})
    return {"pacing": asdict(pacing), "start_s": 100.0, "steps": steps}


def _texts(draw: random.Random) -> Iterable[dict[str, Any]]:
    vocabulary = reference_vocabulary()
    words = [token for token in vocabulary if token > 258]
    for text, stop in (
        ("plain text", []),
        ("héllo — 漢字 🎶", []),
        ("one END two", ["END"]),
        ("abcabd", ["abd", "abx"]),
        ("xaab", ["aab", "ab"]),
        ("no stop at the en", ["end", "never"]),
    ):
        yield _read(list(text.encode()), stop)
    yield _read([0xF0, 0x9F, 65, 0xC3, 256, 66, 0xE2, 0x82], [])
    yield _read([0xC3], ["\ufffd"])
    yield _read([draw.choice(words) for _ in range(9)], [" the", "tion"])
    for _ in range(6):
        yield _read([draw.randrange(320) for _ in range(30)], ["e", "\ufffd\ufffd"])


def _read(ids: list[int], stop: list[str]) -> dict[str, Any]:
    stream = TextStream(reference_vocabulary(), stop)
    pieces = []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    return {
        "ids": ids[: len(pieces)],
        "stop": stop,
        "pieces": pieces,
        "stopped": stream.stopped,
        "tail": stream.flush(),
    }


def _identities() -> Iterable[dict[str, Any]]:
    ours = {
        "model": "m",
        "vocab_size": 320,
        "vocabulary_digest": DIGEST,
        "special_token_ids": (1, 2),
        "stop_token_ids": (2,),
        "merges_digest": DIGEST,
        "template_digest": DIGEST,
        "weights_digest": DIGEST,
        "numerics": "fp32",
    }
    other = DIGEST[::-1]
    for change in (
        {},
        {"vocab_size": 512},
        {"vocabulary_digest": other},
        {"vocabulary_digest": b""},
        {"special_token_ids": (1, 3)},
        {"stop_token_ids": (1, 2)},
        {"merges_digest": other, "template_digest": b""},
        {"weights_digest": other},
        {"numerics": "int8"},
    ):
        theirs = {**ours, **change}
        found = compare(ModelIdentity(**ours), ModelIdentity(**theirs))
        level = exactness_level(ModelIdentity(**ours), ModelIdentity(**theirs))
        yield {
            "ours": _plain(ours),
            "theirs": _plain(theirs),
            "fatal": len(found.fatal),
            "warnings": len(found.warnings),
            "exactness_level": level,
        }


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in identity.items()
    }


def _reference(draw: random.Random) -> dict[str, Any]:
    ids = [draw.randrange(320) for _ in range(draw.choice([1, 40]))]
    state = state_of(ids, range(len(ids)))
    logits = logits_from_state(state).tolist()
    finite = [None if value == float("-inf") else value for value in logits]
    return {"ids": ids, "state": str(state), "logits": finite}


def _vocabularies() -> Iterable[dict[str, Any]]:
    """Tokenizers in the forms there are, and what their table and merges hash to."""
    added = [{"id": 3, "content": "<|é|>", "special": True}]
    merges = {"merges": ["a b", "Ġ t"], "ignore_merges": False}
    for spec in (
        {"decoder": {"type": "ByteLevel"}, "vocab": {"a": 0, "Ġt": 2, "Ã©": 1, "漢": 4}},
        {"decoder": {"type": "Metaspace"}, "vocab": [["▁a", -1.5], ["b", -2.0]]},
        {
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
            "vocab": {"<0xE9>": 1, "▁x": 2},
        },
    ):
        tokenizer = {
            "model": {"vocab": spec["vocab"], **merges},
            "decoder": spec["decoder"],
            "added_tokens": added,
            "pre_tokenizer": {"type": "Split", "pattern": "\x7f\n\u2581🎶", "invert": True},
        }
        yield {
            "tokenizer": tokenizer,
            "ids": list(vocabulary := Vocabulary.from_tokenizer_json(tokenizer)),
            "text_bytes": [vocabulary.text_bytes(token).hex() for token in vocabulary],
            "digest": vocabulary.digest.hex(),
            "merges_digest": merges_digest(tokenizer).hex(),
        }


def _states() -> Iterable[dict[str, Any]]:
    for state in DeviceState:
        yield {
            "state": state.name,
            "next": sorted(each.name for each in TRANSITIONS[state]),
            "actions": {name: ACTIONS[state, name].name.lower() for name in MESSAGES},
        }


def _closed(code: int, why: str) -> dict[str, Any]:
    """A browser tells 1006 where no close frame came."""
    error = from_close(None if code == 1006 else code, why)
    told = None if error is None else {"name": type(error).__name__, "reason": error.reason}
    return {"code": code, "close_reason": why, "error": told}


def render() -> str:
    """The file's text: one entry a line, so that a change shows."""
    sections = (
        f"{json.dumps(name)}: [\n"
        + ",\n".join(json.dumps(each, allow_nan=False) for each in entries)
        + "\n]"
        for name, entries in vectors().items()
    )
    return "{\n" + ",\n".join(sections) + "\n}\n"


if __name__ == "__main__":
    PATH.write_text(render(), encoding="utf-8")
