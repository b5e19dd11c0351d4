# The stages that all recipes share; sourced by their run.sh, which sets `corpus` (an array of arguments).
#
#   run.sh [--stage N] [--stop_stage N] [--hparams FILE] [any argument of train.py ...]
#
# 1 prepare: manifests and trial lists   2 train   3 evaluate

stage=1 stop_stage=3 hparams=hparams/ecapa_small.yaml
rest=()
while (($#)); do
    case $1 in
        --stage) stage=$2; shift 2 ;;
        --stop_stage) stop_stage=$2; shift 2 ;;
        --hparams) hparams=$2; shift 2 ;;
        *) rest+=("$1"); shift ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=python
[ -x .venv/bin/python ] && python=.venv/bin/python
arguments=("$hparams" "${corpus[@]}" "${rest[@]}")

run_stage() {  # number, title, command...
    local number=$1 title=$2
    shift 2
    if ((stage <= number && number <= stop_stage)); then
        echo "== stage $number: $title"
        "$@"
    fi
}

run_stage 1 prepare "$python" prepare.py "${arguments[@]}"
run_stage 2 train "$python" train.py "${arguments[@]}"
run_stage 3 evaluate "$python" eval_eer.py "${arguments[@]}"
