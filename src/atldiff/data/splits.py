"""Which speakers are for training, which for choosing a model and which for judging it.

:data:`SPLIT_RULE` says the rule in words, for a data card; :func:`assign_splits` applies it.
"""

import hashlib
from collections.abc import Iterable

SPLITS = ("train", "val", "test")

VAL_SHARE = 0.1
TEST_SHARE = 0.1

SPLIT_RULE = (
    "Splits are speaker-disjoint: all clips of a speaker are in one split. Where a `clips.csv` states the splits "
    "they are taken as stated. CREMA-D has the published split of its 91 actors into 63 train, 9 val and 19 test "
    "(TensorFlow Datasets' `crema_d` 1.0.0: 5,144, 738 and 1,556 of the 7,438 clips listed there; 5,146, 738 and "
    "1,558 of all 7,442). Every other speaker is placed by u, the first eight bytes of the SHA-256 of "
    "`corpus/speaker` as a fraction of 2^64: below 0.1 val, below 0.2 test, else train; so a speaker keeps its split "
    "when others are added. Only where that leaves no train speaker, the one with the highest u becomes one, and "
    "where it leaves no val speaker although there are two speakers or more, the train speaker (or, if there is only "
    "one, the test speaker) with the lowest u becomes one."
)

_CREMA_D_VAL = (1015, 1020, 1021, 1030, 1050, 1070, 1079, 1089, 1090)
_CREMA_D_TEST = (
    *(1010, 1013, 1022, 1026, 1037, 1038, 1040, 1045, 1047, 1048),
    *(1059, 1065, 1066, 1068, 1071, 1073, 1084, 1086, 1088),
)
_PUBLISHED = {
    "CREMA-D": {str(actor): "val" for actor in _CREMA_D_VAL} | {str(actor): "test" for actor in _CREMA_D_TEST}
}
"""By corpus, the speakers that are not for training."""

Speaker = tuple[str, str]
"""Corpus and name."""


def assign_splits(speakers: Iterable[Speaker]) -> dict[Speaker, str]:
    """The split of every speaker by :data:`SPLIT_RULE`; the order of ``speakers`` does not matter."""
    by_position = sorted(set(speakers), key=_position)
    splits = {speaker: _split(speaker) for speaker in by_position}
    if by_position and "train" not in splits.values():
        splits[by_position[-1]] = "train"
    if len(by_position) > 1 and "val" not in splits.values():
        trained = [speaker for speaker in by_position if splits[speaker] == "train"]
        tested = [speaker for speaker in by_position if splits[speaker] == "test"]
        splits[(trained if len(trained) > 1 else tested)[0]] = "val"
    return splits


def _split(speaker: Speaker) -> str:
    corpus, name = speaker
    if corpus in _PUBLISHED:
        return _PUBLISHED[corpus].get(name, "train")
    position = _position(speaker)
    if position < VAL_SHARE:
        return "val"
    return "test" if position < VAL_SHARE + TEST_SHARE else "train"


def _position(speaker: Speaker) -> float:
    digest = hashlib.sha256("/".join(speaker).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
