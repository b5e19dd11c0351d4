"""The speakers that a system serves worst, and its most confident errors, at one threshold: what to listen to first."""

import numpy as np
import pandas as pd

from voice_biometrics.trial_tables import utterance_rows


def worst_speakers(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 10) -> pd.DataFrame:
    """Return the speakers with the highest mean of FRR and FAR, the worst first.

    A speaker's FRR is over the target trials of that speaker, his or her FAR over the non-target trials with that
    speaker on either side. A rate without trials is left out of the mean. Of speakers with equal means the one with
    more errors comes first, then the name decides; speakers without an error are not listed.

    Arguments
    ---------
    scores : scored trials: ``enrol_id``, ``test_id``, ``target`` (1 or 0), ``score``.
    manifest : utterances: ``ID``, ``spk_id``.
    threshold : accept from this score on.
    count : how many to return at most.

    Returns
    -------
    A row a speaker: ``spk_id``; ``num_target``, ``num_false_rejects``, ``frr``; ``num_nontarget``,
    ``num_false_accepts``, ``far`` (fractions, NaN without trials); ``mean_error``; ``confused_with``, the speaker with
    whom most of these false accepts happened (the highest share of the two speakers' trials decides between equals),
    and ``num_confused`` of ``num_met`` trials with that speaker. ``confused_with`` is None without a false accept.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest.
    """
    names, enrol, test = _speakers(scores, manifest)
    is_target, accepted = scores["target"].to_numpy() == 1, scores["score"].to_numpy() >= threshold
    table = _rates_by_speaker(names, enrol, test, is_target, accepted)
    num_errors = table["num_false_rejects"] + table["num_false_accepts"]
    order = np.lexsort((table["spk_id"], -num_errors, -table["mean_error"]))
    table = table.iloc[order[num_errors.to_numpy()[order] > 0][:count]]
    pairs = _count_pairs(enrol, test, ~is_target, accepted)
    confused = [_most_confused(pairs, speaker) for speaker in table.index]
    table["confused_with"] = [None if other is None else names[other] for other, _, _ in confused]
    table["num_confused"], table["num_met"] = [num for _, num, _ in confused], [num for _, _, num in confused]
    return table.reset_index(drop=True)


def worst_trials(scores: pd.DataFrame, manifest: pd.DataFrame, threshold: float, count: int = 20) -> pd.DataFrame:
    """Return the most confident errors: non-targets far above the threshold and targets far below, the farthest first.

    Arguments
    ---------
    scores, threshold : as ``worst_speakers``. manifest : utterances: ``ID``, ``spk_id``, and ``wav`` if known.
    count : how many to return at most.

    Returns
    -------
    A row a trial: ``error`` ("false accept" or "false reject"), ``score``, ``distance`` from the threshold, and of
    both sides ``enrol_id, enrol_spk_id, enrol_wav, test_id, test_spk_id, test_wav``. Trials at equal distance come in
    their own order.

    Raises
    ------
    InputError : an utterance of a trial is not in the manifest.
    """
    is_target, score = scores["target"].to_numpy() == 1, scores["score"].to_numpy()
    wrong = np.flatnonzero(is_target != (score >= threshold))
    distance = np.abs(score[wrong] - threshold)
    order = np.argsort(-distance, kind="stable")[:count]
    worst = scores.iloc[wrong[order]]
    table = pd.DataFrame(
        {
            "error": np.where(worst["target"] == 1, "false reject", "false accept"),
            "score": worst["score"].to_numpy(),
            "distance": distance[order],
        }
    )
    for side, rows in zip(("enrol", "test"), utterance_rows(worst, pd.Index(manifest["ID"])), strict=True):
        for column, name in (("ID", "id"), ("spk_id", "spk_id"), ("wav", "wav")):
            if column not in manifest:
                continue
            table[f"{side}_{name}"] = manifest[column].to_numpy()[rows]
    return table


def _speakers(scores: pd.DataFrame, manifest: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the speakers' names, and each side's speaker by its place among them, (trials,) int each."""
    codes, names = pd.factorize(manifest["spk_id"], sort=True)
    enrol, test = utterance_rows(scores, pd.Index(manifest["ID"]))
    return np.asarray(names), codes[enrol], codes[test]


def _rates_by_speaker(
    names: np.ndarray, enrol: np.ndarray, test: np.ndarray, is_target: np.ndarray, accepted: np.ndarray
) -> pd.DataFrame:
    """Count each speaker's trials and errors: a target trial has one speaker, a non-target trial two."""

    def count(chosen: np.ndarray, sides: list[np.ndarray]) -> np.ndarray:
        return sum(np.bincount(side[chosen], minlength=names.size) for side in sides)

    table = pd.DataFrame({"spk_id": names})
    table["num_target"] = count(is_target, [enrol])
    table["num_false_rejects"] = count(is_target & ~accepted, [enrol])
    table["frr"] = table["num_false_rejects"] / table["num_target"]
    table["num_nontarget"] = count(~is_target, [enrol, test])
    table["num_false_accepts"] = count(~is_target & accepted, [enrol, test])
    table["far"] = table["num_false_accepts"] / table["num_nontarget"]
    return table.assign(mean_error=table[["frr", "far"]].mean(axis=1))


def _count_pairs(enrol: np.ndarray, test: np.ndarray, nontarget: np.ndarray, accepted: np.ndarray) -> pd.DataFrame:
    """Count trials and false accepts of each pair of speakers that met: ``first, second, num_met, num_confused``."""
    num_speakers = np.int64(1 + max(enrol.max(initial=0), test.max(initial=0)))
    key = (np.minimum(enrol, test) * num_speakers + np.maximum(enrol, test))[nontarget]
    pairs, place = np.unique(key, return_inverse=True)
    return pd.DataFrame(
        {
            "first": pairs // num_speakers,
            "second": pairs % num_speakers,
            "num_met": np.bincount(place, minlength=pairs.size),
            "num_confused": np.bincount(place, weights=accepted[nontarget], minlength=pairs.size).astype(np.int64),
        }
    )


def _most_confused(pairs: pd.DataFrame, speaker: int) -> tuple[int | None, int, int]:
    """Return the other speaker most often taken for this one, or the reverse, with the false accepts and the trials."""
    own = pairs[((pairs["first"] == speaker) | (pairs["second"] == speaker)) & (pairs["num_confused"] > 0)]
    if own.empty:
        return None, 0, 0
    first, second, num_met, num_confused = own.sort_values(["num_confused", "num_met"], ascending=[False, True]).iloc[0]
    return int(second if first == speaker else first), int(num_confused), int(num_met)
