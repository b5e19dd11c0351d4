"""Models of several enrolment utterances: the average of their embeddings.

Enrolment list (CSV): ``model_id, utt_id``, a row for each utterance of a model. Trials name a model as ``enrol_id``. It
counts as an utterance with the total duration of its utterances.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from voice_biometrics.common.errors import InputError
from voice_biometrics.common.trial_lists import check_both_kinds
from voice_biometrics.scoring.as_norm import average_by_group

COLUMNS = ["model_id", "utt_id"]


def read_enrolment(path: Path, utterances: pd.DataFrame) -> pd.DataFrame:
    """Return an enrolment list as a table of ``model_id`` and ``utt_id``.

    Raises InputError when the file or a column is missing, an utterance is not in ``utterances`` (columns ``ID``,
    ``spk_id``), a row is repeated, a model has utterances of two speakers, or a model has the name of an utterance.
    """
    if not path.is_file():
        raise InputError(f"{path}: enrolment list not found")
    try:
        enrolment = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a CSV with the columns model_id and utt_id: {error}") from error
    if not set(COLUMNS) <= set(enrolment) or enrolment.empty:
        raise InputError(f"{path}: expected rows of model_id and utt_id, found the columns {', '.join(enrolment)}")
    enrolment = enrolment.assign(**{column: enrolment[column].str.normalize("NFC") for column in COLUMNS})
    speaker_of = utterances.set_index("ID")["spk_id"]
    speaker = enrolment["utt_id"].map(speaker_of)
    faults = {
        "utterance not in the manifest": ~enrolment["utt_id"].isin(speaker_of.index),
        "a model may not have the name of an utterance": enrolment["model_id"].isin(speaker_of.index),
        "repeated row": enrolment.duplicated(COLUMNS),
        "second speaker of this model": speaker != speaker.groupby(enrolment["model_id"]).transform("first"),
    }
    for fault, faulty in faults.items():
        if faulty.any():
            row = int(np.argmax(faulty))
            model_id, utt_id = enrolment[COLUMNS].iloc[row]
            raise InputError(f"{path}, line {row + 2}: model {model_id}, utterance {utt_id}: {fault}")
    return enrolment[COLUMNS]


def draw_enrolment(
    utterances: pd.DataFrame, num_utterances: int, seed: int, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Enrol each speaker with randomly drawn utterances, and test every other utterance against every model.

    Arguments
    ---------
    utterances : the columns ``ID`` and ``spk_id``. A speaker with too few utterances has no model.
    num_utterances : per model, 1 or more.
    seed : of the random draw.
    name : of the utterances, for errors.

    Returns
    -------
    The enrolment list, and the trials (``enrol_id, test_id, target``): all models against all other utterances.

    Raises
    ------
    InputError : no speaker has more than ``num_utterances`` utterances, or there is only one speaker.
    """
    if num_utterances < 1:
        raise InputError(f"--enrol_with {num_utterances}: expected 1 or more")
    shuffled = utterances.sample(frac=1.0, random_state=seed)
    by_speaker = shuffled.groupby("spk_id")
    place = by_speaker.cumcount()
    enough = by_speaker["ID"].transform("size") > num_utterances
    enrolled = shuffled[(place < num_utterances) & enough].sort_values("ID")
    if enrolled.empty:
        raise InputError(f"{name}: no speaker has {num_utterances} utterances to enrol and one more to test")
    enrolment = pd.DataFrame({"model_id": "model-" + enrolled["spk_id"], "utt_id": enrolled["ID"]})
    tested = utterances[~utterances["ID"].isin(enrolled["ID"])]
    speakers = np.sort(enrolled["spk_id"].unique())
    trials = pd.DataFrame(
        {
            "enrol_id": np.repeat("model-" + speakers.astype(object), len(tested)),
            "test_id": np.tile(tested["ID"].to_numpy(), len(speakers)),
            "target": (speakers[:, None] == tested["spk_id"].to_numpy()[None, :]).ravel().astype(np.int8),
        }
    )
    check_both_kinds(trials["target"].to_numpy(), f"{name}, {num_utterances} utterances enrolled")
    return enrolment.reset_index(drop=True), trials


def with_models(
    embeddings: np.ndarray, utterances: pd.DataFrame, enrolment: pd.DataFrame
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return embeddings (utterances + models, dims) and the table of utterances, with the models appended as rows."""
    rows = pd.Index(utterances["ID"]).get_indexer(enrolment["utt_id"])
    averages, model_ids = average_by_group(embeddings[rows], enrolment["model_id"].to_numpy(), enrolment["utt_id"])
    parts = utterances.iloc[rows].groupby(enrolment["model_id"].to_numpy(), sort=True)
    models = parts.first().assign(ID=model_ids)
    for column, how in (("duration", "sum"), ("wav", " + ".join)):
        if column in utterances:
            models[column] = parts[column].agg(how)
    return np.concatenate([embeddings, averages]), pd.concat([utterances, models], ignore_index=True)
