"""An evaluation written down: report.html, report.md, metrics.json and pictures; and a few lines on screen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from voice_biometrics import report_content as content
from voice_biometrics.comparison import ComparedFigure, compare_systems
from voice_biometrics.evaluation import Evaluation
from voice_biometrics.figures import score_figures
from voice_biometrics.files import write_json
from voice_biometrics.metrics import Cost
from voice_biometrics.operating_points import in_words
from voice_biometrics.report import write_report
from voice_biometrics.report_made import how_made
from voice_biometrics.report_people import people
from voice_biometrics.report_words import number, per_cent
from voice_biometrics.scored_trials import ScoredTrials


@dataclass(frozen=True)
class Subject:
    """What was evaluated, for the report.

    title : of the report. folder : where it goes. command : that made it. facts : name -> value.
    files : whose checksums are told. chose_checkpoint : the speakers of the trials also chose the best checkpoint.
    """

    title: str
    folder: Path
    command: str
    facts: Mapping[str, object]
    files: Sequence[Path]
    chose_checkpoint: bool = False


def write_evaluation(
    evaluation: Evaluation, subject: Subject, against: Sequence[ScoredTrials], costs: Sequence[Cost]
) -> dict:
    """Write the report and its pictures to ``subject.folder``, and return the content of metrics.json.

    ``against`` : other systems' scores of the same trials. Raises InputError where their trials differ.
    """
    subject.folder.mkdir(parents=True, exist_ok=True)
    clean = evaluation.clean.trials
    compared = {other.name: _compare(clean, other, costs) for other in against}
    fars = list(evaluation.clean.by_score.frr_at)
    others = {other.name: score_figures(other, costs, fars) for other in against}
    people_section, groups = people(evaluation, subject.folder)
    sections = [
        content.headline(evaluation, subject.chose_checkpoint),
        content.decisions(evaluation),
        content.accuracy(evaluation, subject.folder),
        *content.comparison(evaluation, others, compared, subject.folder),
        content.calibration(evaluation, subject.folder),
        people_section,
        how_made(subject.command, subject.facts, subject.files),
    ]
    write_report(subject.title, sections, subject.folder)
    metrics = {"command": subject.command, **subject.facts, "chose_checkpoint": subject.chose_checkpoint}
    metrics |= evaluation.to_dict() | {"groups": groups}
    metrics["against"] = {name: [asdict(figure) for figure in figures] for name, figures in compared.items()}
    write_json(metrics, subject.folder / "metrics.json")
    return metrics


def _compare(clean: ScoredTrials, other: ScoredTrials, costs: Sequence[Cost]) -> list[ComparedFigure]:
    """Return the differences of this system and another."""
    speaker_of = clean.utterances.set_index("ID")["spk_id"]
    return compare_systems(clean.table, other.table, speaker_of, costs, names=("this system", other.name))


def say(evaluation: Evaluation, subject: Subject) -> None:
    """Print the figures that are wanted first, and where the others are."""
    clean = evaluation.clean.summary
    print(
        f"Trials   {clean['num_target'] + clean['num_nontarget']:,}: {clean['num_target']:,} target, "
        f"{clean['num_nontarget']:,} non-target, of {clean['num_speakers']} speakers"
    )
    for judged in evaluation.lists:
        print(f"EER      {per_cent(judged.summary['eer'], judged.summary['interval'])}   {judged.name}")
    for dcf in clean["min_dcf"]:
        print(f"minDCF   {number(dcf['value'], dcf['interval'])}   p_target {dcf['p_target']:g}")
    if evaluation.thresholds:
        print(f"C_llr    {number(clean['cllr'], clean['cllr_interval'])} bits; at best {number(clean['min_cllr'])}")
        for use, result in evaluation.clean.by_llr.points.items():
            print(f"Use      {in_words(use, result)}")
    else:
        print(f"Note     no thresholds: {evaluation.not_calibrated}")
    if subject.chose_checkpoint:
        print("Note     these held-out speakers also chose the checkpoint, so the EER is a little too good")
    print(f"Report   {subject.folder / 'report.html'} (also report.md, metrics.json and the pictures)")
